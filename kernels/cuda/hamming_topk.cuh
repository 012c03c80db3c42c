// The k nearest live codes on the device: an exact scan. Thread-safe: a pure launcher.
#ifndef SEMSHARE_KERNELS_CUDA_HAMMING_TOPK_CUH_
#define SEMSHARE_KERNELS_CUDA_HAMMING_TOPK_CUH_

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/context.cuh"

namespace semshare {

// REQUIRES: the addresses of all spans are memory that the device reaches; CheckHammingTopK is OK.
absl::Status LaunchHammingTopK(const HammingTopKArgs& args, const KernelContext& context);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_HAMMING_TOPK_CUH_
