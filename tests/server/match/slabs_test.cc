#include "server/match/slabs.h"

#include <gtest/gtest.h>

#include <thread>

namespace semshare {
namespace {

TEST(SlabsTest, PlacesAreDenseAndEachSlabDoublesTheWhole) {
  SlabPlace expected;
  for (uint32_t index = 0; index < 70000; ++index) {
    const SlabPlace place = PlaceOf(index);
    ASSERT_EQ(place.slab, expected.slab) << index;
    ASSERT_EQ(place.row, expected.row) << index;
    if (++expected.row == SlabRows(expected.slab)) expected = {expected.slab + 1, 0};
  }
  const SlabPlace last = PlaceOf((uint32_t{1} << 31) - 1);
  EXPECT_EQ(last.slab, kMaxSlabs - 1);
  EXPECT_EQ(last.row, SlabRows(kMaxSlabs - 1) - 1);
}

TEST(SlabsTest, PlacesStayWhereTheyAre) {
  SlabArray<int> array;
  EXPECT_EQ(array.bytes(), 0);
  array.Ensure(0);
  int* const first = &array[0];
  *first = 7;
  array.Ensure(4096);
  array.Ensure(8192);
  EXPECT_EQ(&array[0], first);
  EXPECT_EQ(array[0], 7);
  EXPECT_EQ(array[8192], 0);
  EXPECT_EQ(array.bytes(), 16384 * static_cast<int64_t>(sizeof(int)));
}

TEST(SlabsTest, ThreadsMayEnsureTheSamePlace) {
  SlabArray<uint32_t> array;
  const auto write = [&](uint32_t first) {
    for (uint32_t i = first; i < 20000; i += 2) {
      array.Ensure(i);
      array[i] = i;
    }
  };
  std::thread threads[] = {std::thread(write, 0), std::thread(write, 1)};
  for (std::thread& thread : threads) thread.join();
  for (uint32_t i = 0; i < 20000; ++i) ASSERT_EQ(array[i], i);
}

}  // namespace
}  // namespace semshare
