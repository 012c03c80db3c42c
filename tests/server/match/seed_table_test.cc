#include "server/match/seed_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

constexpr int64_t kSeedTokens = 8;

std::vector<int32_t> AllSeeds(const Ids& target) {
  std::vector<int32_t> positions(target.size() + 1 - kSeedTokens);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

uint64_t HashAt(const Ids& text, int64_t position) {
  SeedHasher hasher(text, kSeedTokens);
  for (int64_t i = 0; i < position; ++i) hasher.Next();
  return hasher.Next();
}

TEST(CommonLengthTest, AgreesWithComparingOneByOne) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Prompts prompts(seed, 3);
    const Ids a = prompts.Text(1 + prompts.Below(400));
    Ids b = Join({Slice(a, 0, prompts.Below(static_cast<int64_t>(a.size()))), prompts.Text(3)});
    const auto limit = static_cast<int64_t>(std::min(a.size(), b.size()));
    int64_t equal = 0;
    while (equal < limit && a[equal] == b[equal]) ++equal;
    EXPECT_EQ(CommonPrefix(a, b), equal);
    const Ids a_reversed(a.rbegin(), a.rend());
    const Ids b_reversed(b.rbegin(), b.rend());
    EXPECT_EQ(CommonSuffix(a_reversed, b_reversed), equal);
  }
  EXPECT_EQ(CommonPrefix({}, {1}), 0);
  EXPECT_EQ(CommonSuffix({1}, {}), 0);
}

TEST(SeedHasherTest, EqualSeedsHashAlikeAndOthersDiffer) {
  Prompts prompts(1, 3);
  const Ids text = prompts.Text(300);
  std::vector<uint64_t> hashes;
  SeedHasher hasher(text, kSeedTokens);
  for (size_t i = 0; i + kSeedTokens <= text.size(); ++i) hashes.push_back(hasher.Next());
  for (size_t a = 0; a < hashes.size(); ++a) {
    for (size_t b = 0; b < hashes.size(); ++b) {
      const bool equal = Slice(text, static_cast<int64_t>(a), static_cast<int64_t>(a) + 8) ==
                         Slice(text, static_cast<int64_t>(b), static_cast<int64_t>(b) + 8);
      ASSERT_EQ(hashes[a] == hashes[b], equal);
    }
  }
}

TEST(SeedHasherTest, SeeksTheNextSeedThatIsWanted) {
  Prompts prompts(2, 50000);
  const Ids text = prompts.Text(100);
  SeedHasher hasher(text, kSeedTokens);
  const auto seek = [&](int64_t from, int64_t wanted) {
    uint64_t hash = 0;
    const uint64_t hash_wanted = HashAt(text, wanted);
    const bool found = hasher.Seek(
        from, [&](uint64_t h) { return h == hash_wanted; }, &hash);
    EXPECT_EQ(hash == hash_wanted, found);
    return found ? hasher.position() : -1;
  };
  EXPECT_EQ(seek(0, 0), 0);
  EXPECT_EQ(seek(1, 40), 40);
  EXPECT_EQ(seek(60, 92), 92);  // the last whole one
  EXPECT_EQ(seek(93, 92), -1);
  EXPECT_EQ(seek(20, 40), 40);  // back again
  EXPECT_EQ(seek(41, 40), -1);
}

TEST(SeedTableTest, FindsEveryPlaceOfARareSeedAndTheNearestOfACommonOne) {
  Prompts prompts(3, 50000);
  const Ids seed = {1, 2, 3, 4, 5, 6, 7, 8};
  Ids target;
  for (int i = 0; i < 20; ++i) target = Join({target, seed, prompts.Text(5)});
  const SeedTable rare(target, AllSeeds(target), kSeedTokens);
  const SeedTable::Occurrences all = rare.Find(HashAt(seed, 0), 0);
  EXPECT_FALSE(all.common);
  for (int32_t i = 0; i < 20; ++i) {
    EXPECT_TRUE(std::binary_search(all.positions.begin(), all.positions.end(), i * 13));
  }

  const Ids same(1000, 9);
  const SeedTable common(same, AllSeeds(same), kSeedTokens);
  const SeedTable::Occurrences near = common.Find(HashAt(same, 0), 500);
  EXPECT_TRUE(near.common);
  ASSERT_EQ(static_cast<int64_t>(near.positions.size()), SeedTable::kCommonOccurrences);
  EXPECT_LE(near.positions.front(), 500);
  EXPECT_GE(near.positions.back(), 500);
  EXPECT_EQ(common.Find(HashAt(same, 0), -100).positions.front(), 0);
  EXPECT_EQ(common.Find(HashAt(same, 0), 100000).positions.back(), 992);
}

TEST(SeedTableTest, KnowsOnlyTheSeedsItWasGiven) {
  Prompts prompts(4, 50000);
  const Ids target = prompts.Text(200);
  const SeedTable table(target, {16, 192}, kSeedTokens);
  const auto found = [&](int64_t position) {
    if (!table.MayHold(HashAt(target, position))) return false;
    const auto places = table.Find(HashAt(target, position), 0).positions;
    return std::find(places.begin(), places.end(), position) != places.end();
  };
  EXPECT_TRUE(found(16));
  EXPECT_TRUE(found(192));  // the last whole one
  EXPECT_FALSE(found(17));
}

}  // namespace
}  // namespace semshare
