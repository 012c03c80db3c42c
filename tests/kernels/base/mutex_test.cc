// The locks, and a canary: ThreadSanitizer must report a real race and be silent about a guarded
// access, or its silence elsewhere would mean nothing.
#include "kernels/base/mutex.h"

#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace semshare {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

struct Counter {
  Mutex mutex;
  CondVar changed;
  int value = 0;
};

void AddGuarded(Counter* counter) {
  for (int i = 0; i < 1000; ++i) {
    MutexLock lock(&counter->mutex);
    ++counter->value;
    counter->changed.NotifyAll();
  }
}

TEST(MutexTest, GuardedAccessIsNoRace) {
  Counter counter;
  std::thread other(AddGuarded, &counter);
  AddGuarded(&counter);
  other.join();
  EXPECT_EQ(counter.value, 2000);
}

TEST(MutexTest, WaitSeesWhatWasNotified) {
  Counter counter;
  std::thread other(AddGuarded, &counter);
  {
    MutexLock lock(&counter.mutex);
    while (counter.value < 1000) counter.changed.Wait(&counter.mutex);
  }
  other.join();
}

TEST(MutexTest, WaitForTellsThatTimeRanOut) {
  Counter counter;
  MutexLock lock(&counter.mutex);
  // Spurious wake-ups are allowed, endless ones are not.
  int wakes = 0;
  while (counter.changed.WaitFor(&counter.mutex, std::chrono::milliseconds(1))) ++wakes;
  EXPECT_LT(wakes, 1000);
}

void Race() {
  int value = 0;
  std::thread other([&value] {
    for (int i = 0; i < 100000; ++i) value = value + 1;
  });
  for (int i = 0; i < 100000; ++i) value = value + 1;
  other.join();
}

TEST(MutexDeathTest, ARealRaceIsReported) {
  if (!kThreadSanitizer) GTEST_SKIP() << "needs ThreadSanitizer";
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(Race(), "data race");
}

}  // namespace
}  // namespace semshare
