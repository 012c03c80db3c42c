#include "kernels/cpu/worker_pool.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace semshare {
namespace {

TEST(WorkerPoolTest, CoversEveryItemOnce) {
  for (const int threads : {1, 2, 5}) {
    WorkerPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t count : {0, 1, 7, 100, 1001}) {
      for (const int64_t grain : {1, 8, 5000}) {
        std::vector<int> visits(static_cast<size_t>(count));
        pool.ParallelFor(count, grain, [&visits](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        EXPECT_EQ(visits, std::vector<int>(static_cast<size_t>(count), 1));
      }
    }
  }
}

TEST(WorkerPoolTest, SeveralCallersAtOnce) {
  WorkerPool pool(3);
  std::vector<std::thread> callers;
  std::vector<std::atomic<int64_t>> sums(4);
  for (std::atomic<int64_t>& sum : sums) {
    callers.emplace_back([&pool, &sum] {
      for (int round = 0; round < 200; ++round) {
        pool.ParallelFor(100, 1, [&sum](int64_t begin, int64_t end) { sum += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const std::atomic<int64_t>& sum : sums) EXPECT_EQ(sum, 20000);
}

}  // namespace
}  // namespace semshare
