#include "server/match/grams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

TEST(GramsTest, EstimatesSharedTokens) {
  Prompts prompts(4, 50000);
  const GramOptions options;
  const Ids text = prompts.Text(2000);
  PostingTable table(options.cap);
  table.Add(0, DistinctHashes(Winnow(text, options)));
  const Ids target = Join({prompts.Text(500), Slice(text, 700, 1700), prompts.Text(500)});
  const std::vector<Gram> grams = Winnow(target, options);
  const auto hits = FindGrams(table, grams);
  const std::vector<GramShare> shares = SharesBySlot(grams, hits, options);
  ASSERT_EQ(shares.size(), 1u);
  EXPECT_NEAR(shares[0].tokens, 1000, 2 * options.winnow_window);
  const std::vector<bool> covered = CoveredByGrams(grams, hits, options, 2000);
  EXPECT_EQ(std::count(covered.begin(), covered.begin() + 500, true), 0);
  EXPECT_EQ(std::count(covered.begin() + 500, covered.begin() + 1500, true), shares[0].tokens);
}

TEST(GramsTest, ASharedPreambleDoesNotDrownTheRightReference) {
  Prompts prompts(5, 50000);
  GramOptions options;
  const Ids preamble = prompts.Text(2000);
  const Ids wanted = prompts.Text(300);
  // Many references hold the preamble; the right one comes last, with or without it.
  for (const bool with_preamble : {true, false}) {
    PostingTable table(options.cap);
    for (uint32_t slot = 0; slot < 200; ++slot) {
      table.Add(slot, DistinctHashes(Winnow(Join({preamble, prompts.Text(200)}), options)));
    }
    const Ids right = with_preamble ? Join({preamble, wanted}) : wanted;
    table.Add(200, DistinctHashes(Winnow(right, options)));
    const std::vector<Gram> grams = Winnow(Join({preamble, wanted}), options);
    const std::vector<GramShare> chosen =
        ChooseByCoverage(grams, FindGrams(table, grams), options, 8);
    ASSERT_GE(chosen.size(), 2u);
    EXPECT_TRUE(chosen[0].slot == 200 || chosen[1].slot == 200);
    // Nobody adds to these two, so nobody else is chosen.
    EXPECT_LE(chosen.size(), 3u);
  }
}

}  // namespace
}  // namespace semshare
