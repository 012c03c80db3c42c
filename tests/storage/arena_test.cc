#include "storage/arena.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace semshare {
namespace {

constexpr int64_t kBlock = 64 * kArenaAlignment;

TEST(ArenaTest, OneRunMayFillASuperblock) {
  Arena arena(1, kBlock);
  EXPECT_EQ(arena.Allocate(kBlock), 0);
  EXPECT_EQ(arena.bytes_used(), kBlock);
  EXPECT_FALSE(arena.Allocate(1).has_value());
  arena.Free(0);
  EXPECT_EQ(arena.bytes_used(), 0);
}

TEST(ArenaTest, EmptySuperblockServesAnotherClass) {
  Arena arena(1, kBlock);
  const auto a = arena.Allocate(kBlock / 4);
  const auto b = arena.Allocate(kBlock / 4);
  ASSERT_TRUE(a.has_value() && b.has_value());
  EXPECT_FALSE(arena.Allocate(kBlock / 2).has_value());
  arena.Free(*a);
  EXPECT_FALSE(arena.Allocate(kBlock / 2).has_value());
  EXPECT_TRUE(arena.Serves(0, kBlock / 4));
  EXPECT_EQ(arena.LiveSlots(0), 1);
  arena.Free(*b);
  EXPECT_TRUE(arena.Allocate(kBlock / 2).has_value());
}

TEST(ArenaTest, SizesRoundToSlots) {
  Arena arena(1, kBlock);
  // 64 units: 3 slots of 21 units.
  int slots = 0;
  while (arena.Allocate(20 * kArenaAlignment).has_value()) ++slots;
  EXPECT_EQ(slots, 3);
  EXPECT_EQ(arena.bytes_used(), 3 * 21 * kArenaAlignment);
}

// Random allocations against a map of units: aligned, inside, never overlapping, and refused only
// where no slot of the class and no empty superblock is left.
TEST(ArenaTest, RandomAllocationsNeverOverlap) {
  constexpr int64_t kSuperblocks = 7;
  std::mt19937_64 random(20240917);
  Arena arena(kSuperblocks, kBlock);
  std::vector<bool> units(static_cast<size_t>(kSuperblocks * kBlock / kArenaAlignment), false);
  std::map<int64_t, int64_t> live;  // offset -> units
  const auto mark = [&](int64_t offset, int64_t count, bool used) {
    for (int64_t i = 0; i < count; ++i) {
      const auto unit = static_cast<size_t>(offset / kArenaAlignment + i);
      ASSERT_NE(units[unit], used) << "unit " << unit;
      units[unit] = used;
    }
  };
  for (int step = 0; step < 20000; ++step) {
    if (random() % 100 < 52) {
      const auto bytes = static_cast<int64_t>(random() % (random() % 4 == 0 ? kBlock : 2000)) + 1;
      const std::optional<int64_t> offset = arena.Allocate(bytes);
      if (!offset.has_value()) {
        for (int64_t s = 0; s < kSuperblocks; ++s) EXPECT_GT(arena.LiveSlots(s), 0);
        continue;
      }
      EXPECT_EQ(*offset % kArenaAlignment, 0);
      EXPECT_EQ(*offset / kBlock, (*offset + bytes - 1) / kBlock);
      const int64_t count = (bytes + kArenaAlignment - 1) / kArenaAlignment;
      mark(*offset, count, true);
      live[*offset] = count;
    } else if (!live.empty()) {
      auto it = live.begin();
      std::advance(it, static_cast<int64_t>(random() % live.size()));
      arena.Free(it->first);
      mark(it->first, it->second, false);
      live.erase(it);
    }
  }
  for (const auto& [offset, count] : live) arena.Free(offset);
  EXPECT_EQ(arena.bytes_used(), 0);
  for (int64_t s = 0; s < kSuperblocks; ++s) EXPECT_TRUE(arena.Allocate(kBlock).has_value());
}

TEST(ArenaDeathTest, DoubleFreeStops) {
  Arena arena(1, kBlock);
  const auto keep = arena.Allocate(kArenaAlignment);
  const auto a = arena.Allocate(kArenaAlignment);
  ASSERT_TRUE(keep.has_value() && a.has_value());
  arena.Free(*a);
  EXPECT_DEATH(arena.Free(*a), "check failed");
  EXPECT_DEATH(arena.Free(*keep + 1), "check failed");
}

}  // namespace
}  // namespace semshare
