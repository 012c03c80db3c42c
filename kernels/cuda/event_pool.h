// EventPool: the points that lanes record. Each is a CUDA event and a pinned word into which the
// lane copies what its kernels have found wrong so far.
//
// Thread-safe. Events keep the pool alive, so they may outlive the backend.
#ifndef SEMSHARE_KERNELS_CUDA_EVENT_POOL_H_
#define SEMSHARE_KERNELS_CUDA_EVENT_POOL_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"
#include "kernels/cuda/cuda_raii.h"

namespace semshare {

class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  explicit EventPool(int device) : device_(device) {}

  // Makes `count` points ahead. More are made when they run out.
  absl::Status Grow(int count);

  // The point after everything on the stream so far. `error` is the lane's word in device memory.
  // REQUIRES: the pool is owned by a shared_ptr; the device is current.
  absl::StatusOr<Event> Record(cudaStream_t stream, const int32_t* error);

 private:
  struct Point {
    CudaEvent event;
    int32_t* error = nullptr;  // pinned
  };
  class State;

  absl::StatusOr<Point> Take();
  void Give(Point point);

  const int device_;
  Mutex mutex_;
  std::deque<Point> free_ ABSL_GUARDED_BY(mutex_);  // the longest free one first
  std::vector<PinnedMemory> words_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_EVENT_POOL_H_
