// Vec16: 16 bytes that are loaded and stored at once, and how code that runs on the device and, in
// tests, on the CPU touches memory. Device code uses 128-bit accesses through this file and vec.cuh
// only.
//
// Alignment is the caller's to prove: launchers look at shapes and strides (realign_launch.h), and
// the kernel at the addresses of each row.
//
// Thread-safe: pure functions; constexpr, so that device code may call them.
#ifndef SEMSHARE_KERNELS_CUDA_VEC_H_
#define SEMSHARE_KERNELS_CUDA_VEC_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace semshare {

struct alignas(16) Vec16 {
  uint32_t words[4];
};

struct alignas(8) Vec8 {
  uint32_t words[2];
};

// One instruction per access: an aligned struct becomes one vector load or store in PTX
// (tests/bench/cuda_registers.sh counts them). DeviceAccess in vec.cuh is the same for the device.
struct AlignedAccess {
  // REQUIRES: `from` is aligned to T.
  template <class T>
  static constexpr T Load(const std::byte* from) {
    return *reinterpret_cast<const T*>(from);
  }
  template <class T>
  static constexpr void Store(const T& value, std::byte* to) {
    *reinterpret_cast<T*>(to) = value;
  }
};

// fn(0), fn(1), ... fn(kCount - 1) with constants: arrays that are indexed by them become
// registers, which a loop that the compiler leaves as one would put into local memory.
template <class Fn, int... kIndices>
constexpr void UnrollIndices(const Fn& fn, std::integer_sequence<int, kIndices...>) {
  (fn(std::integral_constant<int, kIndices>()), ...);
}
template <int kCount, class Fn>
constexpr void Unroll(const Fn& fn) {
  UnrollIndices(fn, std::make_integer_sequence<int, kCount>());
}

// Element i of `kBytes` bytes within words, as the machine orders them (little-endian).
template <int kBytes>
constexpr uint32_t Unpack(const uint32_t* words, int i) {
  if constexpr (kBytes == 4) {
    return words[i];
  } else if constexpr (kBytes == 2) {
    return (words[i / 2] >> (16 * (i % 2))) & 0xFFFF;
  } else {
    return (words[i / 4] >> (8 * (i % 4))) & 0xFF;
  }
}

// REQUIRES: the element's bits of the words are still zero.
template <int kBytes>
constexpr void Pack(uint32_t value, uint32_t* words, int i) {
  if constexpr (kBytes == 4) {
    words[i] = value;
  } else if constexpr (kBytes == 2) {
    words[i / 2] |= value << (16 * (i % 2));
  } else {
    words[i / 4] |= value << (8 * (i % 4));
  }
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_VEC_H_
