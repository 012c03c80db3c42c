#include "storage/staging.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace semshare {
namespace {

struct alignas(256) Line {
  std::byte bytes[256];
};

TEST(DiskStagingTest, RangesDoNotOverlapAndComeBack) {
  std::vector<Line> memory(16);
  DiskStaging pool(HostSpan(memory.data(), 16));
  {
    const StagingRange a = pool.Acquire(1);
    const StagingRange b = pool.Acquire(257);
    EXPECT_EQ(a.span().bytes, 256);
    EXPECT_EQ(b.span().bytes, 512);
    EXPECT_EQ(b.span().address, a.span().address + 256);
    EXPECT_EQ(b.span().address % DiskStaging::kAlignment, 0U);
  }
  const StagingRange all = pool.Acquire(16 * 256);
  EXPECT_EQ(all.span().bytes, pool.capacity());
}

TEST(DiskStagingTest, ThreadsShareThePool) {
  std::vector<Line> memory(16);
  DiskStaging pool(HostSpan(memory.data(), 16));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < 500; ++i) {
        const StagingRange range = pool.Acquire(static_cast<int64_t>(random() % (16 * 256)) + 1);
        const auto size = static_cast<size_t>(range.span().bytes);
        std::memset(range.span().host(), t, size);
        for (size_t j = 0; j < size; ++j) {
          ASSERT_EQ(range.span().host()[j], static_cast<std::byte>(t));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.Acquire(16 * 256).span().bytes, 16 * 256);
}

}  // namespace
}  // namespace semshare
