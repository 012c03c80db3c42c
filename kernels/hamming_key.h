// HammingKey: distance and index of a code in one number, ordered as results are: nearer first,
// ties to the lower index. The k smallest keys are the k nearest codes, in whatever order they were
// met.
//
// Thread-safe: pure functions; constexpr, so that device code may call them.
#ifndef SEMSHARE_KERNELS_HAMMING_KEY_H_
#define SEMSHARE_KERNELS_HAMMING_KEY_H_

#include <cstdint>
#include <limits>

namespace semshare {

// The distance that goes with index -1: farther than any code.
inline constexpr int32_t kNoDistance = std::numeric_limits<int32_t>::max();

// Larger than the key of any code.
inline constexpr uint64_t kNoHammingKey = ~uint64_t{0};

// Indices are below this: 13 bits are left for distances, which are at most 4096.
inline constexpr int64_t kMaxHammingIndex = int64_t{1} << 48;

constexpr uint64_t HammingKey(int32_t distance, int64_t index) {
  return static_cast<uint64_t>(distance) << 48 | static_cast<uint64_t>(index);
}

constexpr int32_t HammingKeyDistance(uint64_t key) {
  return key == kNoHammingKey ? kNoDistance : static_cast<int32_t>(key >> 48);
}

constexpr int64_t HammingKeyIndex(uint64_t key) {
  return key == kNoHammingKey ? -1 : static_cast<int64_t>(key & (kMaxHammingIndex - 1));
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_HAMMING_KEY_H_
