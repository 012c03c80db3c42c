// Copies on a lane, between any two of device memory, pinned memory and other host memory.
// Not thread-safe: works on the caller's lane.
#ifndef SEMSHARE_KERNELS_CUDA_COPY_H_
#define SEMSHARE_KERNELS_CUDA_COPY_H_

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_lane.h"

namespace semshare {

// Queues the copy. `pinned` says which host ends the device reaches: the other ones go through the
// lane's staging, and only a source of that kind can make the caller wait, for a buffer of it.
// REQUIRES: CheckCopy is OK.
struct PinnedEnds {
  bool destination = false;
  bool source = false;
};
absl::Status QueueCopy(CudaLane& lane, const MemorySpan& destination, const MemorySpan& source,
                       PinnedEnds pinned);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_COPY_H_
