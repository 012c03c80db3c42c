// Realign on the device: one kernel over (plane, row), a warp each. Thread-safe: a pure launcher.
#ifndef SEMSHARE_KERNELS_CUDA_REALIGN_CUH_
#define SEMSHARE_KERNELS_CUDA_REALIGN_CUH_

#include "absl/status/status.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/realign_launch.h"

namespace semshare {

// REQUIRES: the launch's tables and planes are memory that the device reaches.
absl::Status LaunchRealign(const RealignLaunch& launch, Dtype dtype, Codec codec,
                           const KernelContext& context);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_REALIGN_CUH_
