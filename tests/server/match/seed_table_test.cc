#include "server/match/seed_table.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

TEST(PrefixHashTest, EqualRangesHashAlikeAndOthersDiffer) {
  Prompts prompts(1, 50);
  const Ids text = prompts.Text(500);
  const std::vector<uint64_t> powers = PrefixHash::Powers(501);
  const PrefixHash hash(text, powers);
  for (int i = 0; i < 2000; ++i) {
    const int64_t tokens = prompts.Below(20);
    const int64_t a = prompts.Below(480);
    const int64_t b = prompts.Below(480);
    const bool equal = std::equal(text.begin() + a, text.begin() + a + tokens, text.begin() + b);
    EXPECT_EQ(hash.Range(a, tokens) == hash.Range(b, tokens), equal);
  }
}

TEST(SeedTableTest, LengthsAgreeWithComparingTokenByToken) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Prompts prompts(seed, 3);
    const Ids first = prompts.Text(200);
    const Ids second = Join({prompts.Text(30), first});
    const Ids target = prompts.Edited(first, 0.02);
    const std::vector<Ids> sources = {first, Ids(), second};
    const SeedTable table(target, sources, 4);
    for (int i = 0; i < 500; ++i) {
      const int source = prompts.Below(2) == 0 ? 0 : 2;
      const Ids& ids = sources[source];
      const int64_t position = prompts.Below(static_cast<int64_t>(ids.size()));
      const int64_t at = prompts.Below(static_cast<int64_t>(target.size()));
      const int64_t place = table.Begin(source) + position;
      ASSERT_EQ(table.SourceOf(place), source);
      int64_t forward = 0;
      while (at + forward < static_cast<int64_t>(target.size()) &&
             position + forward < static_cast<int64_t>(ids.size()) &&
             target[at + forward] == ids[position + forward]) {
        ++forward;
      }
      int64_t backward = 0;
      while (backward < at && backward < position &&
             target[at - backward - 1] == ids[position - backward - 1]) {
        ++backward;
      }
      ASSERT_EQ(table.Forward(at, place), forward);
      ASSERT_EQ(table.Backward(at, place), backward);
      ASSERT_EQ(table.Verified(at, place, forward), forward);
    }
  }
}

TEST(SeedTableTest, FindsEveryPlaceOfARareSeedAndTheNearestOfACommonOne) {
  Prompts prompts(3, 50000);
  const Ids seed = {1, 2, 3, 4, 5, 6, 7, 8};
  Ids source;
  for (int i = 0; i < 20; ++i) source = Join({source, seed, prompts.Text(5)});
  const SeedTable rare(seed, std::vector<Ids>{source}, 8);
  EXPECT_EQ(rare.Occurrences(0, 0).size(), 20u);

  const Ids same(1000, 9);
  const SeedTable common(Slice(same, 0, 8), std::vector<Ids>{same}, 8);
  const auto near = common.Occurrences(0, 500);
  ASSERT_EQ(static_cast<int64_t>(near.size()), SeedTable::kCommonOccurrences);
  EXPECT_LE(near.front(), 500);
  EXPECT_GE(near.back(), 500);
  EXPECT_EQ(common.Occurrences(0, -100).front(), 0);
  EXPECT_EQ(common.Occurrences(0, 100000).back(), 992);
  EXPECT_TRUE(common.Occurrences(1, 0).empty());  // no whole seed there
}

TEST(SeedTableTest, SeedsDoNotCrossSources) {
  const std::vector<Ids> sources = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  const Ids target = {3, 4, 5, 6};
  const SeedTable table(target, sources, 4);
  for (const int32_t place : table.Occurrences(0, 0)) {
    EXPECT_LT(table.Forward(0, place), 4);  // at most a neighbour in its bucket
  }
}

}  // namespace
}  // namespace semshare
