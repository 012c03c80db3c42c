#include "kernels/cuda/staging_plan.h"

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {

absl::StatusOr<int64_t> StagingPlan::Add(absl::string_view field, int64_t bytes) {
  SEMSHARE_CHECK(bytes >= 0);
  const int64_t offset = AlignUp(used_);
  if (offset > capacity_ || bytes > capacity_ - offset) {
    return absl::ResourceExhaustedError(
        absl::StrCat(field, " has ", bytes,
                     " bytes of host memory: with the operation's other tables they do "
                     "not fit the lane's staging of ",
                     capacity_,
                     " bytes (staging_bytes); put it in device "
                     "memory"));
  }
  used_ = offset + bytes;
  return offset;
}

}  // namespace semshare
