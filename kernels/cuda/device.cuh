// What kernels share. Included by .cu files only. Thread-safe: device functions.
#ifndef SEMSHARE_KERNELS_CUDA_DEVICE_CUH_
#define SEMSHARE_KERNELS_CUDA_DEVICE_CUH_

#include <cstdint>

#include "kernels/cuda/context.cuh"
#include "kernels/cuda/device_error.h"
#include "kernels/cuda/grid.h"

namespace semshare {

inline constexpr unsigned kAllLanes = 0xFFFFFFFF;

// Keeps the first error; the lane's events report it.
__device__ inline void ReportError(int32_t* word, DeviceError error) {
  atomicCAS(word, 0, static_cast<int32_t>(error));
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_DEVICE_CUH_
