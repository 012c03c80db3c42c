// Rotary position embeddings: the descriptor, and the angle and rotation math that every backend
// shares. Functions are `constexpr`-friendly and free of state so that device code may call them.
//
// Realignment moves a K row from source position s to target position t (method: every pair (x, y)
// of the rotary range turns by phi_j = p_t f_j - p_s f_j, angles as the engine forms them).
//
// Thread-safe: values and pure functions.
#ifndef SEMSHARE_KERNELS_ROTARY_H_
#define SEMSHARE_KERNELS_ROTARY_H_

#include <cmath>
#include <cstdint>
#include <vector>

namespace semshare {

// Frozen: stored on disk.
enum class RotaryPairing : uint8_t {
  kHalfSplit = 1,    // element j with j + width / 2 (GPT-NeoX, Llama)
  kInterleaved = 2,  // element 2j with 2j + 1 (GPT-J)
};

// Frozen: stored on disk.
enum class AnglePrecision : uint8_t {
  kFloat32 = 1,  // fl32(fl32(position) * fl32(inv_freq)) (Transformers)
  kFloat64 = 2,
};

// The rotary range [begin, begin + width) of a head's row; width == 0: none, the row is copied.
struct RotaryDescriptor {
  int32_t begin = 0;
  int32_t width = 0;
  RotaryPairing pairing = RotaryPairing::kHalfSplit;
  AnglePrecision angle_precision = AnglePrecision::kFloat32;
  std::vector<double> inv_freq;  // width / 2, the engine's own
  double magnitude = 1.0;

  bool operator==(const RotaryDescriptor&) const = default;
};

// The angle of one pair at one position, in radians, exactly as the engine forms it.
inline double RotaryAngle(int64_t position, double inv_freq, AnglePrecision precision) {
  if (precision == AnglePrecision::kFloat64) return static_cast<double>(position) * inv_freq;
  // One rounding each for position, frequency and product: the engine multiplies in fp32.
  const float product = static_cast<float>(position) * static_cast<float>(inv_freq);
  return static_cast<double>(product);
}

// Elements of pair j within a rotary range of `width` elements.
constexpr int32_t PairFirst(int32_t j, RotaryPairing pairing) {
  return pairing == RotaryPairing::kHalfSplit ? j : 2 * j;
}
constexpr int32_t PairSecond(int32_t j, int32_t width, RotaryPairing pairing) {
  return pairing == RotaryPairing::kHalfSplit ? j + width / 2 : 2 * j + 1;
}

// A pair turned by the angle of (cosine, sine), in fp32. The CPU rounds each product; a device may
// fuse one of them into the sum. Both are within the error bound of the conformance suite.
struct RotatedPair {
  float x = 0;
  float y = 0;
};
constexpr RotatedPair RotatePair(float x, float y, float cosine, float sine) {
  return {x * cosine - y * sine, x * sine + y * cosine};
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_ROTARY_H_
