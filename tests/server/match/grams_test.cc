#include "server/match/grams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

using testing::IsEmpty;

TEST(WinnowTest, KeepsOneGramOfEveryWindow) {
  Prompts prompts(1);
  const GramOptions options;
  for (const int64_t tokens : {0, 1, 19, 20, 39, 40, 41, 1000}) {
    const std::vector<Gram> grams = Winnow(prompts.Text(tokens), options);
    if (tokens < options.gram_tokens) {
      EXPECT_THAT(grams, IsEmpty());
      continue;
    }
    ASSERT_FALSE(grams.empty());
    EXPECT_LT(grams.front().position, options.winnow_window);
    for (size_t i = 1; i < grams.size(); ++i) {
      EXPECT_GT(grams[i].position, grams[i - 1].position);
      EXPECT_LE(grams[i].position - grams[i - 1].position, options.winnow_window);
    }
    EXPECT_LE(grams.back().position + options.gram_tokens, tokens);
    EXPECT_GT(grams.back().position + options.gram_tokens + options.winnow_window, tokens);
  }
}

TEST(WinnowTest, EverySharedRunOfFortyTokensSharesAGramAtTheSamePlace) {
  const GramOptions options;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Prompts prompts(seed, seed % 5 == 0 ? 2 : 5000);  // few symbols: many equal grams
    const Ids run = prompts.Text(40);
    const int64_t first_offset = prompts.Below(100);
    const int64_t second_offset = prompts.Below(100);
    const Ids first = Join({prompts.Text(first_offset), run, prompts.Text(prompts.Below(100))});
    const Ids second = Join({prompts.Text(second_offset), run, prompts.Text(prompts.Below(100))});
    bool found = false;
    for (const Gram& a : Winnow(first, options)) {
      for (const Gram& b : Winnow(second, options)) {
        found =
            found || (a.hash == b.hash && a.position - first_offset == b.position - second_offset &&
                      a.position >= first_offset);
      }
    }
    EXPECT_TRUE(found) << seed;
  }
}

TEST(WinnowTest, TheKeyChangesEveryHash) {
  Prompts prompts(2);
  const Ids text = prompts.Text(500);
  GramOptions other;
  other.key = 1;
  const std::vector<uint64_t> a = DistinctHashes(Winnow(text, GramOptions()));
  const std::vector<uint64_t> b = DistinctHashes(Winnow(text, other));
  std::vector<uint64_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  EXPECT_THAT(both, IsEmpty());
}

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
