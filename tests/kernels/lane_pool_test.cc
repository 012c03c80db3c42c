#include "kernels/lane_pool.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

namespace semshare {
namespace {

std::shared_ptr<LanePool> NewPool(int lanes) {
  std::vector<std::unique_ptr<Lane::Impl>> impls;
  for (int i = 0; i < lanes; ++i) impls.push_back(std::make_unique<Lane::Impl>());
  return std::make_shared<LanePool>(std::move(impls));
}

TEST(LanePoolTest, LendsEachLaneOnce) {
  const std::shared_ptr<LanePool> pool = NewPool(2);
  absl::StatusOr<Lane> first = pool->Acquire(absl::ZeroDuration());
  absl::StatusOr<Lane> second = pool->Acquire(absl::ZeroDuration());
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(first->impl(), second->impl());
  for (const absl::Duration timeout : {absl::ZeroDuration(), absl::Seconds(-1),
                                       -absl::InfiniteDuration(), absl::Milliseconds(1)}) {
    EXPECT_EQ(pool->Acquire(timeout).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

TEST(LanePoolTest, WaitsForAReturnedLane) {
  const std::shared_ptr<LanePool> pool = NewPool(1);
  std::optional<Lane> lane(*pool->Acquire(absl::ZeroDuration()));
  std::thread returner([&lane] { lane.reset(); });
  EXPECT_TRUE(pool->Acquire(absl::InfiniteDuration()).ok());
  returner.join();
}

TEST(LanePoolTest, ALaneOutlivesThePoolsOwner) {
  std::shared_ptr<LanePool> pool = NewPool(1);
  absl::StatusOr<Lane> lane = pool->Acquire(absl::ZeroDuration());
  pool.reset();
  EXPECT_NE(lane->impl(), nullptr);
}

}  // namespace
}  // namespace semshare
