#include "kernels/codec.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

constexpr float kLargestFp8 = 448;
constexpr float kLargestInt8 = 127;

}  // namespace

uint8_t Fp8E4m3FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 24) & 0x80;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return static_cast<uint8_t>(sign | 0x7F);
  if (magnitude >= std::bit_cast<uint32_t>(kLargestFp8)) return static_cast<uint8_t>(sign | 0x7E);
  uint32_t result;
  if (magnitude < std::bit_cast<uint32_t>(0x1p-6F)) {
    // Subnormal: adding 2^14 moves the bits to be kept to the end of the sum, and the addition
    // itself rounds to nearest even.
    const float sum = std::bit_cast<float>(magnitude) + 0x1p14F;
    result = std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(0x1p14F);
  } else {
    // Rebias the exponent from 127 to 7 and round; a carry out of the mantissa is right.
    result = (magnitude - (uint32_t{120} << 23) + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20;
  }
  return static_cast<uint8_t>(sign | std::min<uint32_t>(result, 0x7E));
}

float EncodeHead(Codec codec, absl::Span<const float> values, uint8_t* payload) {
  SEMSHARE_CHECK(codec == Codec::kFp8E4m3 || codec == Codec::kInt8);
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  const float scale = largest / (codec == Codec::kInt8 ? kLargestInt8 : kLargestFp8);
  for (size_t i = 0; i < values.size(); ++i) {
    const float scaled = scale > 0 ? values[i] / scale : 0;
    if (codec == Codec::kFp8E4m3) {
      payload[i] = Fp8E4m3FromFloat(scaled);
    } else {
      const float rounded = std::nearbyint(std::clamp(scaled, -kLargestInt8, kLargestInt8));
      payload[i] = static_cast<uint8_t>(static_cast<int8_t>(rounded));
    }
  }
  return scale;
}

}  // namespace semshare
