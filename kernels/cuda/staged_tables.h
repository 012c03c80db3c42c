// StagedTables: carries the tables of one operation to the device and its results back, through the
// lane's staging.
//
//   Input... Output...   give the device addresses; host tables are copied into a pinned buffer
//   Upload               queues one copy to the device
//   (kernels)
//   Return               queues one copy back and a host function that spreads the results
//
// Spans in device memory are used where they are. The areas of the pinned and of the device buffer
// have the same offsets. An operation that fails on the way has queued at most a copy into the
// device's staging, which nobody reads.
//
// Not thread-safe: belongs to a lane's thread.
#ifndef SEMSHARE_KERNELS_CUDA_STAGED_TABLES_H_
#define SEMSHARE_KERNELS_CUDA_STAGED_TABLES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/cuda_lane.h"
#include "kernels/cuda/staging_plan.h"

namespace semshare {

class StagedTables {
 public:
  explicit StagedTables(CudaLane* lane) : lane_(*lane), plan_(lane->staging_bytes()) {}

  // The first `bytes` bytes of the span, for kernels. All inputs come before the first output.
  template <typename T>
  absl::StatusOr<const T*> Input(absl::string_view field, const MemorySpan& span, int64_t count) {
    SEMSHARE_ASSIGN_OR_RETURN(const void* const address,
                              InputBytes(field, span, count * static_cast<int64_t>(sizeof(T))));
    return static_cast<const T*>(address);
  }

  template <typename T>
  absl::StatusOr<T*> Output(absl::string_view field, const MemorySpan& span, int64_t count) {
    SEMSHARE_ASSIGN_OR_RETURN(void* const address,
                              OutputBytes(field, span, count * static_cast<int64_t>(sizeof(T))));
    return static_cast<T*>(address);
  }

  absl::Status Upload();
  absl::Status Return();

 private:
  struct Result {
    int64_t offset = 0;
    MemorySpan span;
  };

  absl::StatusOr<const void*> InputBytes(absl::string_view field, const MemorySpan& span,
                                         int64_t bytes);
  absl::StatusOr<void*> OutputBytes(absl::string_view field, const MemorySpan& span, int64_t bytes);
  // The pinned buffer of this operation, free for the host to write.
  absl::Status TakeBuffer();

  CudaLane& lane_;
  StagingPlan plan_;
  StagingBuffer* buffer_ = nullptr;
  int64_t input_bytes_ = 0;
  std::vector<Result> results_;
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_STAGED_TABLES_H_
