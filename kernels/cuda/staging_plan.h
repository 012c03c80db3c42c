// StagingPlan: where the tables and results of one operation lie in a staging buffer.
//
// A lane has two pinned buffers and one device buffer of the same size, so one plan gives the
// offsets of both. Areas are aligned to 256 bytes, which suits every load that the kernels do.
//
// Not thread-safe: a value. No CUDA here.
#ifndef SEMSHARE_KERNELS_CUDA_STAGING_PLAN_H_
#define SEMSHARE_KERNELS_CUDA_STAGING_PLAN_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semshare {

class StagingPlan {
 public:
  static constexpr int64_t kAlignment = 256;
  static constexpr int64_t AlignUp(int64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  explicit StagingPlan(int64_t capacity) : capacity_(capacity) {}

  // The offset of an area of `bytes` bytes; RESOURCE_EXHAUSTED naming the field and the limit if it
  // does not fit beside the areas before it. REQUIRES: bytes >= 0.
  absl::StatusOr<int64_t> Add(absl::string_view field, int64_t bytes);

  // From the first byte of the first area to the last byte of the last.
  int64_t used() const { return used_; }

 private:
  const int64_t capacity_;
  int64_t used_ = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_STAGING_PLAN_H_
