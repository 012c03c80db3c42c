#include "server/match/gram_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<uint64_t> Hashes(const std::vector<Gram>& grams) {
  std::set<uint64_t> hashes;
  for (const Gram& gram : grams) hashes.insert(gram.hash);
  return {hashes.begin(), hashes.end()};
}

TEST(WinnowTest, KeepsOneGramOfEveryWindow) {
  Prompts prompts(1);
  const GramOptions options;
  for (const int64_t tokens : {0, 1, 23, 24, 39, 40, 41, 1000}) {
    const std::vector<Gram> grams = Winnow(prompts.Text(tokens), options);
    if (tokens < 24) {
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
  const std::vector<uint64_t> a = Hashes(Winnow(text, GramOptions()));
  const std::vector<uint64_t> b = Hashes(Winnow(text, other));
  std::vector<uint64_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  EXPECT_THAT(both, IsEmpty());
}

TEST(GramIndexTest, AddFindRemove) {
  GramIndex index(64);
  index.Add(1, std::vector<uint64_t>{10, 20});
  index.Add(2, std::vector<uint64_t>{20, 30});
  EXPECT_EQ(index.grams(), 3);
  EXPECT_GT(index.bytes(), 0);
  const std::vector<Gram> query = {{20, 0}, {10, 5}, {99, 9}};
  std::vector<std::pair<uint32_t, int32_t>> hits;
  for (const GramIndex::Hit& hit : index.Find(query)) hits.emplace_back(hit.slot, hit.query);
  EXPECT_THAT(hits, ElementsAre(std::pair(1u, 0), std::pair(1u, 1), std::pair(2u, 0)));

  index.Remove(1, std::vector<uint64_t>{10, 20});
  index.Remove(1, std::vector<uint64_t>{77});  // never added
  ASSERT_EQ(index.Find(query).size(), 1u);
  EXPECT_EQ(index.Find(query)[0].slot, 2u);
  EXPECT_EQ(index.Find(query)[0].references, 1);
  index.Remove(2, std::vector<uint64_t>{20, 30});
  EXPECT_EQ(index.grams(), 0);
}

TEST(GramIndexTest, AFullPostingCountsWithoutListing) {
  GramIndex index(3);
  for (uint32_t slot = 0; slot < 5; ++slot) index.Add(slot, std::vector<uint64_t>{10});
  const std::vector<Gram> query = {{10, 0}};
  ASSERT_EQ(index.Find(query).size(), 3u);
  EXPECT_EQ(index.Find(query)[0].references, 5);
  for (uint32_t slot = 0; slot < 5; ++slot) index.Remove(slot, std::vector<uint64_t>{10});
  EXPECT_EQ(index.grams(), 0);
}

TEST(GramIndexTest, EstimatesSharedTokens) {
  Prompts prompts(4, 50000);
  const GramOptions options;
  const Ids text = prompts.Text(2000);
  GramIndex index(64);
  index.Add(0, Hashes(Winnow(text, options)));
  const Ids target = Join({prompts.Text(500), Slice(text, 700, 1700), prompts.Text(500)});
  const std::vector<Gram> grams = Winnow(target, options);
  const auto hits = index.Find(grams);
  const std::vector<GramShare> shares = SharesBySlot(grams, hits, options);
  ASSERT_EQ(shares.size(), 1u);
  EXPECT_NEAR(shares[0].tokens, 1000, 2 * options.winnow_window);
  const std::vector<bool> covered = CoveredByGrams(grams, hits, options, 2000);
  EXPECT_EQ(std::count(covered.begin(), covered.begin() + 500, true), 0);
  EXPECT_EQ(std::count(covered.begin() + 500, covered.begin() + 1500, true), shares[0].tokens);
}

TEST(GramIndexTest, ASharedPreambleDoesNotDrownTheRightReference) {
  Prompts prompts(5, 50000);
  GramOptions options;
  const Ids preamble = prompts.Text(2000);
  const Ids wanted = prompts.Text(300);
  // Many references hold the preamble; the right one comes last, with or without it.
  for (const bool with_preamble : {true, false}) {
    GramIndex index(options.cap);
    for (uint32_t slot = 0; slot < 200; ++slot) {
      index.Add(slot, Hashes(Winnow(Join({preamble, prompts.Text(200)}), options)));
    }
    const Ids right = with_preamble ? Join({preamble, wanted}) : wanted;
    index.Add(200, Hashes(Winnow(right, options)));
    const std::vector<Gram> grams = Winnow(Join({preamble, wanted}), options);
    const std::vector<GramShare> chosen = ChooseByCoverage(grams, index.Find(grams), options, 8);
    ASSERT_GE(chosen.size(), 2u);
    EXPECT_TRUE(chosen[0].slot == 200 || chosen[1].slot == 200);
    // Nobody adds to these two, so nobody else is chosen.
    EXPECT_LE(chosen.size(), 3u);
  }
}

}  // namespace
}  // namespace semshare
