// The nearest code of a window on the device. Thread-safe: a pure launcher.
#ifndef SEMSHARE_KERNELS_CUDA_NEAREST_CODE_CUH_
#define SEMSHARE_KERNELS_CUDA_NEAREST_CODE_CUH_

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/context.cuh"

namespace semshare {

// REQUIRES: the addresses of all spans are memory that the device reaches; CheckNearestCode is OK.
absl::Status LaunchNearestCode(const NearestCodeArgs& args, const KernelContext& context);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_NEAREST_CODE_CUH_
