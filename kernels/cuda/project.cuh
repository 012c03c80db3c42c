// Matrix products on the device, by cuBLAS. Thread-safe: a pure launcher; the handle is the lane's.
#ifndef SEMSHARE_KERNELS_CUDA_PROJECT_CUH_
#define SEMSHARE_KERNELS_CUDA_PROJECT_CUH_

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/cublas.h"

namespace semshare {

// REQUIRES: the addresses of all spans are memory that the device reaches; CheckProject is OK.
absl::Status LaunchProject(const ProjectArgs& args, CublasHandle& blas,
                           const KernelContext& context);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_PROJECT_CUH_
