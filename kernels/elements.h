// Elements of KV rows: how each dtype is stored and what it is worth, and how a stored element of
// each codec is decoded. What CPU and device kernels share.
//
// Thread-safe: pure functions; constexpr, so that device code may call them.
#ifndef SEMSHARE_KERNELS_ELEMENTS_H_
#define SEMSHARE_KERNELS_ELEMENTS_H_

#include <bit>
#include <cstdint>
#include <type_traits>

#include "kernels/backend.h"
#include "kernels/codec.h"
#include "kernels/float_convert.h"

namespace semshare {

// `Stored` holds the bits, so that a copy keeps every NaN as it is.
struct Float32Element {
  using Stored = uint32_t;
  static constexpr float Load(Stored stored) { return std::bit_cast<float>(stored); }
  static constexpr Stored Store(float value) { return std::bit_cast<Stored>(value); }
};

struct Float16Element {
  using Stored = uint16_t;
  static constexpr float Load(Stored stored) { return FloatFromFloat16(stored); }
  static constexpr Stored Store(float value) { return Float16FromFloat(value); }
};

struct Bfloat16Element {
  using Stored = uint16_t;
  static constexpr float Load(Stored stored) { return FloatFromBfloat16(stored); }
  static constexpr Stored Store(float value) { return Bfloat16FromFloat(value); }
};

// What the source holds for an element of dtype `Element` under a codec, and its value.
template <class Element, Codec kCodec>
struct Coded {
  using Stored = std::conditional_t<kCodec == Codec::kRaw, typename Element::Stored, uint8_t>;

  // `scale` plays no part in kRaw.
  static constexpr float Load(Stored stored, float scale) {
    if constexpr (kCodec == Codec::kRaw) {
      return Element::Load(stored);
    } else if constexpr (kCodec == Codec::kFp8E4m3) {
      return FloatFromFp8E4m3(stored) * scale;
    } else {
      return FloatFromInt8(stored) * scale;
    }
  }

  // The bits at the destination of an element that is not rotated.
  static constexpr typename Element::Stored Copy(Stored stored, float scale) {
    if constexpr (kCodec == Codec::kRaw) {
      return stored;
    } else {
      return Element::Store(Load(stored, scale));
    }
  }
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_ELEMENTS_H_
