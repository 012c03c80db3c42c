#include "storage/flush_group.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace semshare {
namespace {

TEST(FlushGroupTest, OneCallerOneRun) {
  FlushGroup group;
  for (int64_t i = 1; i <= 3; ++i) {
    EXPECT_TRUE(group
                    .Flush([&](int64_t number) {
                      EXPECT_EQ(number, i);
                      return absl::OkStatus();
                    })
                    .ok());
  }
  EXPECT_TRUE(
      absl::IsUnavailable(group.Flush([](int64_t) { return absl::UnavailableError("x"); })));
  EXPECT_TRUE(group.Flush([](int64_t) { return absl::OkStatus(); }).ok());
}

// Each thread writes, flushes, and must find its write covered. `written` stands for the memory of
// a disk, `flushed` for what is on it.
TEST(FlushGroupTest, ARunCoversWhatWasDoneBeforeTheCall) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 300;
  FlushGroup group;
  Mutex mutex;
  std::vector<int> written(kThreads, 0);
  std::vector<int> flushed(kThreads, 0);
  int64_t runs = 0;  // guarded by the group: one run at a time
  const auto run = [&](int64_t number) {
    EXPECT_EQ(number, ++runs);
    std::vector<int> snapshot;
    {
      const MutexLock lock(&mutex);
      snapshot = written;
    }
    // What is written now is not covered.
    std::this_thread::yield();
    const MutexLock lock(&mutex);
    flushed = snapshot;
    return absl::OkStatus();
  };
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 1; i <= kRounds; ++i) {
        {
          const MutexLock lock(&mutex);
          written[t] = i;
        }
        EXPECT_TRUE(group.Flush(run).ok());
        const MutexLock lock(&mutex);
        EXPECT_GE(flushed[t], i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(runs, kThreads * kRounds);
}

}  // namespace
}  // namespace semshare
