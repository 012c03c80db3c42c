// DeviceAccess: AlignedAccess with loads through the read-only path. Included by .cu files only.
// Thread-safe: device functions.
#ifndef SEMSHARE_KERNELS_CUDA_VEC_CUH_
#define SEMSHARE_KERNELS_CUDA_VEC_CUH_

#include <bit>
#include <cstddef>
#include <type_traits>

#include "kernels/cuda/vec.h"

namespace semshare {

struct DeviceAccess {
  // REQUIRES: `from` is aligned to T; nobody writes there while the kernel runs.
  template <class T>
  static __host__ __device__ T Load(const std::byte* from) {
#ifdef __CUDA_ARCH__
    // The instruction exists for types that CUDA knows: the one of T's size.
    using Word = std::conditional_t<
        sizeof(T) == 16, uint4,
        std::conditional_t<
            sizeof(T) == 8, uint2,
            std::conditional_t<sizeof(T) == 4, unsigned,
                               std::conditional_t<sizeof(T) == 2, unsigned short, unsigned char>>>>;
    static_assert(sizeof(T) == sizeof(Word));
    return std::bit_cast<T>(__ldg(reinterpret_cast<const Word*>(from)));
#else
    return AlignedAccess::Load<T>(from);
#endif
  }

  template <class T>
  static __host__ __device__ void Store(const T& value, std::byte* to) {
    AlignedAccess::Store(value, to);
  }
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_VEC_CUH_
