#include "server/match/slot_pool.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace semshare {
namespace {

TEST(SlotPoolTest, SlotsAreDenseAndUsedAgain) {
  SlotPool pool;
  EXPECT_EQ(pool.Take(), 0u);
  EXPECT_EQ(pool.Take(), 1u);
  pool.GiveBack(0);
  EXPECT_EQ(pool.Take(), 0u);
  EXPECT_EQ(pool.Take(), 2u);
}

TEST(SlotPoolTest, ASlotWaitsForTheReadersThatMaySeeIt) {
  SlotPool pool;
  EXPECT_EQ(pool.Take(), 0u);
  auto first = std::make_unique<SlotPool::Reader>(&pool);
  pool.GiveBack(0);
  auto second = std::make_unique<SlotPool::Reader>(&pool);  // entered too late to see it
  EXPECT_EQ(pool.Take(), 1u);
  pool.GiveBack(1);  // the second may see this one
  first.reset();
  EXPECT_EQ(pool.Take(), 0u);
  EXPECT_EQ(pool.Take(), 2u);
  second.reset();
  EXPECT_EQ(pool.Take(), 1u);
}

TEST(SlotPoolTest, AReaderThatStaysKeepsTheEpochsAfterIt) {
  SlotPool pool;
  for (uint32_t slot = 0; slot < 3; ++slot) EXPECT_EQ(pool.Take(), slot);
  auto early = std::make_unique<SlotPool::Reader>(&pool);
  for (uint32_t slot = 0; slot < 3; ++slot) {
    pool.GiveBack(slot);
    const SlotPool::Reader late(&pool);
  }
  EXPECT_EQ(pool.Take(), 3u);
  early.reset();
  EXPECT_LT(pool.Take(), 3u);
}

// What lies at a slot does not change under a reader: under ThreadSanitizer this is also a test of
// the order of memory.
TEST(SlotPoolTest, ReadersSeeWhatIsAtASlotUntilTheyLeave) {
  SlotPool pool;
  std::vector<uint64_t> content(1000, 0);
  Mutex mutex;
  uint32_t current = pool.Take();  // guarded by mutex
  content[current] = 1;
  const auto write = [&] {
    for (uint64_t value = 2; value < 300; ++value) {
      const uint32_t slot = pool.Take();
      content[slot] = value;
      uint32_t old = 0;
      {
        const MutexLock lock(&mutex);
        old = std::exchange(current, slot);
      }
      pool.GiveBack(old);
    }
  };
  const auto read = [&] {
    for (int i = 0; i < 300; ++i) {
      const SlotPool::Reader reader(&pool);
      uint32_t slot = 0;
      {
        const MutexLock lock(&mutex);
        slot = current;
      }
      const uint64_t before = content[slot];
      std::this_thread::yield();
      EXPECT_EQ(content[slot], before);
    }
  };
  std::thread threads[] = {std::thread(write), std::thread(read), std::thread(read)};
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace semshare
