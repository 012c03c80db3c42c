// Sign codes of rotated token embeddings on the device. Thread-safe: a pure launcher.
#ifndef SEMSHARE_KERNELS_CUDA_TOKEN_CODES_CUH_
#define SEMSHARE_KERNELS_CUDA_TOKEN_CODES_CUH_

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/cublas.h"

namespace semshare {

// `frequencies`: double[width / 2] on the device, theta^(-2j / width).
// REQUIRES: the addresses of all spans are memory that the device reaches; CheckTokenCodes is OK.
absl::Status LaunchTokenCodes(const TokenCodesArgs& args, const double* frequencies,
                              CublasHandle& blas, const KernelContext& context);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_TOKEN_CODES_CUH_
