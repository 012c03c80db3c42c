#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

absl::Status CheckRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ": expected ", low, " to ", high));
}

}  // namespace

absl::Status CudaBackendOptions::Validate() const {
  constexpr int64_t kMiB = int64_t{1} << 20;
  SEMSHARE_RETURN_IF_ERROR(CheckRange("device", device, 0, 63));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("lanes", lanes, 1, 256));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("staging_bytes", staging_bytes, kMiB, 1024 * kMiB));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("scratch_bytes", scratch_bytes, kMiB, 1024 * kMiB));
  if (cublas_library.empty()) {
    return absl::InvalidArgumentError("cublas_library is empty: expected a library's name");
  }
  return absl::OkStatus();
}

}  // namespace semshare
