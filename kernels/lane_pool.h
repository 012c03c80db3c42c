// LanePool: the lanes of a backend, lent to one transfer at a time, with a timed wait for a free
// one.
//
// Thread-safe. The pool owns the lanes that are free; a lent Lane keeps the pool alive, so a Lane
// may outlive the backend that lent it (its work may not).
#ifndef SEMSHARE_KERNELS_LANE_POOL_H_
#define SEMSHARE_KERNELS_LANE_POOL_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"

namespace semshare {

class LanePool : public std::enable_shared_from_this<LanePool> {
 public:
  explicit LanePool(std::vector<std::unique_ptr<Lane::Impl>> lanes);

  // Borrows a lane; waits for one at most `timeout` (zero or less: not at all), then
  // RESOURCE_EXHAUSTED. REQUIRES: the pool is owned by a shared_ptr.
  absl::StatusOr<Lane> Acquire(absl::Duration timeout);

 private:
  void Return(std::unique_ptr<Lane::Impl> lane);

  const size_t size_;
  Mutex mutex_;
  CondVar returned_;
  std::vector<std::unique_ptr<Lane::Impl>> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_LANE_POOL_H_
