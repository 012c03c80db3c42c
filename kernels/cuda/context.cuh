// KernelContext: what a launcher gets from its lane. Thread-safe: a value.
#ifndef SEMSHARE_KERNELS_CUDA_CONTEXT_CUH_
#define SEMSHARE_KERNELS_CUDA_CONTEXT_CUH_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace semshare {

struct KernelContext {
  cudaStream_t stream = nullptr;
  int32_t* error = nullptr;      // DeviceError, in device memory
  std::byte* scratch = nullptr;  // device memory, aligned to 256 bytes
  int64_t scratch_bytes = 0;
  int multiprocessors = 1;
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_CONTEXT_CUH_
