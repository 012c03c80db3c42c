// What stands for kernels/cuda/ in a build without it.
#include "kernels/backend.h"
#include "kernels/base/status_macros.h"

namespace semshare {

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaBackendOptions& options) {
  SEMSHARE_RETURN_IF_ERROR(options.Validate());
  return absl::UnimplementedError("this build has no CUDA backend");
}

}  // namespace semshare
