// Codecs of stored KV: one byte an element, one float32 scale for each head of each token
// (kernels/backend.h has the layout).
//
//   int8       scale = largest / 127; byte = round(x / scale), -127 to 127.
//              Error at most scale / 2.
//   fp8_e4m3   scale = largest / 448; byte = nearest E4M3 value of x / scale (4 exponent bits with
//              bias 7, 3 mantissa bits, no infinity, NaN 0x7F).
//              Error at most |x| / 16 + scale / 1024.
//
// `largest` is the largest magnitude of the head's row. Both bounds leave out the few units of
// 2^-24 that fp32 arithmetic adds.
//
// Thread-safe: pure functions. The decoders are constexpr, so that device code may call them.
#ifndef SEMSHARE_KERNELS_CODEC_H_
#define SEMSHARE_KERNELS_CODEC_H_

#include <bit>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/backend.h"

namespace semshare {

// Bytes of one stored element.
constexpr int64_t StoredBytes(Codec codec, Dtype dtype) {
  return codec == Codec::kRaw ? DtypeBytes(dtype) : 1;
}

constexpr float FloatFromFp8E4m3(uint8_t value) {
  const uint32_t sign = static_cast<uint32_t>(value & 0x80) << 24;
  if ((value & 0x7F) == 0x7F) return std::bit_cast<float>(sign | 0x7FC00000);
  // The bits read as a float are 2^-120 times the value, subnormals too; the product is exact.
  const float scaled = std::bit_cast<float>(static_cast<uint32_t>(value & 0x7F) << 20) * 0x1p120F;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

constexpr float FloatFromInt8(uint8_t value) {
  return static_cast<float>(value < 0x80 ? value : value - 0x100);
}

// The nearest E4M3 value, ties to even; beyond 448 it stays at 448, NaN stays NaN.
uint8_t Fp8E4m3FromFloat(float value);

// Encodes one head of one token; returns its scale (0 if nothing is distinguishable from zero).
// REQUIRES: codec is kFp8E4m3 or kInt8; the values are finite; payload has values.size() bytes.
float EncodeHead(Codec codec, absl::Span<const float> values, uint8_t* payload);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CODEC_H_
