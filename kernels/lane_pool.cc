#include "kernels/lane_pool.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace semshare {
namespace {

// Longer waits are cut to this, so that the deadline cannot overflow the clock.
constexpr absl::Duration kMaxWait = absl::Hours(24 * 365);

}  // namespace

LanePool::LanePool(std::vector<std::unique_ptr<Lane::Impl>> lanes)
    : size_(lanes.size()), free_(std::move(lanes)) {}

absl::StatusOr<Lane> LanePool::Acquire(absl::Duration timeout) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point deadline =
      Clock::now() + absl::ToChronoNanoseconds(std::clamp(timeout, absl::ZeroDuration(), kMaxWait));
  MutexLock lock(&mutex_);
  while (free_.empty()) {
    const std::chrono::nanoseconds left = deadline - Clock::now();
    if (left <= std::chrono::nanoseconds::zero()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no free lane: all ", size_, " lanes are in use"));
    }
    returned_.WaitFor(&mutex_, left);
  }
  std::unique_ptr<Lane::Impl> lane = std::move(free_.back());
  free_.pop_back();
  return Lane(std::move(lane), [self = shared_from_this()](std::unique_ptr<Lane::Impl> returned) {
    self->Return(std::move(returned));
  });
}

void LanePool::Return(std::unique_ptr<Lane::Impl> lane) {
  {
    MutexLock lock(&mutex_);
    free_.push_back(std::move(lane));
  }
  returned_.NotifyOne();
}

}  // namespace semshare
