// Distances of codes, for kernels. Included by .cu files only. Thread-safe: device functions.
#ifndef SEMSHARE_KERNELS_CUDA_HAMMING_CUH_
#define SEMSHARE_KERNELS_CUDA_HAMMING_CUH_

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/vec.h"
#include "kernels/hamming_key.h"

namespace semshare {

// A code of 256 bits, the size that signatures have, aligned to 16 bytes: two 128-bit loads.
struct Code256 {
  Vec16 parts[2];
};

__device__ inline Code256 LoadCode256(const uint64_t* from) {
  const std::byte* const bytes = reinterpret_cast<const std::byte*>(from);
  return {{AlignedAccess::Load<Vec16>(bytes), AlignedAccess::Load<Vec16>(bytes + 16)}};
}

__device__ inline int32_t Distance(const Code256& a, const Code256& b) {
  int32_t distance = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    distance += __popc(a.parts[i / 4].words[i % 4] ^ b.parts[i / 4].words[i % 4]);
  }
  return distance;
}

__device__ inline int32_t Distance(const uint64_t* a, const uint64_t* b, int32_t words) {
  int32_t distance = 0;
  for (int32_t i = 0; i < words; ++i) distance += __popcll(a[i] ^ b[i]);
  return distance;
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_HAMMING_CUH_
