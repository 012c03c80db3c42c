// Conversions between float and the 16-bit formats, rounding to nearest even, one value at a time:
// what device code and the generic path of the CPU use, and the reference for its vector code.
//
// NaN stays NaN and becomes quiet; values too large for float16 become infinity; subnormals are
// exact. Thread-safe: pure functions; constexpr, so that device code may call
// them.
#ifndef SEMSHARE_KERNELS_FLOAT_CONVERT_H_
#define SEMSHARE_KERNELS_FLOAT_CONVERT_H_

#include <bit>
#include <cstdint>

namespace semshare {

constexpr float FloatFromBfloat16(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

constexpr uint16_t Bfloat16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

constexpr float FloatFromFloat16(uint16_t value) {
  const uint32_t sign = static_cast<uint32_t>(value & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(value & 0x7FFF) << 13;
  if (magnitude >= 0x0F800000) {  // infinity or NaN
    const uint32_t quiet = magnitude > 0x0F800000 ? 0x00400000 : 0;
    return std::bit_cast<float>(sign | 0x7F800000 | magnitude | quiet);
  }
  // The bits read as a float are 2^-112 times the value, subnormals too; the product is exact.
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112F;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

constexpr uint16_t Float16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  uint32_t result;
  if (magnitude >= 0x47800000) {  // 2^16 and above, infinity, NaN
    result = magnitude > 0x7F800000 ? 0x7E00 : 0x7C00;
  } else if (magnitude < 0x38800000) {
    // Below 2^-14 the result is subnormal: adding 0.5 moves the bits to be kept to the end of the
    // sum, and the addition itself rounds to nearest even.
    result = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F000000;
  } else {
    // Rebias the exponent and round; a carry out of the mantissa is right, up to infinity.
    result = (magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13;
  }
  return static_cast<uint16_t>(sign | result);
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_FLOAT_CONVERT_H_
