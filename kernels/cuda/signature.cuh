// Sign signatures of weighted sums on the device. Thread-safe: a pure launcher.
#ifndef SEMSHARE_KERNELS_CUDA_SIGNATURE_CUH_
#define SEMSHARE_KERNELS_CUDA_SIGNATURE_CUH_

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/context.cuh"

namespace semshare {

// REQUIRES: the addresses of all spans are memory that the device reaches; CheckSignature is OK.
absl::Status LaunchSignature(const SignatureArgs& args, const KernelContext& context);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_SIGNATURE_CUH_
