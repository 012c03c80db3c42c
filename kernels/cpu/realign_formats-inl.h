// How realign.cc loads and stores a vector of elements: float32, float16 and bfloat16 as fp32
// lanes. Included once per instruction set, by realign.cc only.
//
// Each format has Load and Store for adjacent elements, and LoadPairs and StorePairs for
// interleaved pairs; stores can go past the caches (StorePairs if kStreamsPairs). Stores round to
// nearest even: by hand where Highway 1.0.3 does not (DemoteTo(bfloat16) truncates).
// Thread-safe: pure functions.
#if defined(SEMSHARE_KERNELS_CPU_REALIGN_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEMSHARE_KERNELS_CPU_REALIGN_FORMATS_INL_H_
#undef SEMSHARE_KERNELS_CPU_REALIGN_FORMATS_INL_H_
#else
#define SEMSHARE_KERNELS_CPU_REALIGN_FORMATS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace semshare {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
using Words = hn::RebindToUnsigned<D>;  // uint32 lanes beside fp32 lanes
template <class D>
using Halves = hn::Rebind<uint16_t, D>;  // uint16 lanes, as many

// kStream: past the caches; REQUIRES of `to` then: aligned to the vector.
template <bool kStream, class D, class V, typename T>
HWY_INLINE void Put(D d, V value, T* HWY_RESTRICT to) {
  if constexpr (kStream) {
    hn::Stream(value, d, to);
  } else {
    hn::StoreU(value, d, to);
  }
}

// The low 16 bits of each lane. REQUIRES: the others are zero.
template <bool kStream, class D>
HWY_INLINE void StoreLow16(D, hn::Vec<Words<D>> bits, uint16_t* HWY_RESTRICT to) {
  const hn::RebindToSigned<D> di;
  const Halves<D> dh;
  Put<kStream>(dh, hn::DemoteTo(dh, hn::BitCast(di, bits)), to);
}

// Words of the upper halves of `low` (below) and `high` (above).
template <bool kStream, class D>
HWY_INLINE void PutHighHalves(D, hn::Vec<Words<D>> low, hn::Vec<Words<D>> high,
                              uint16_t* HWY_RESTRICT to) {
  const Words<D> du;
  const auto lower = hn::ShiftRight<16>(low);
#if HWY_TARGET == HWY_SCALAR
  const auto both = hn::Or(lower, hn::And(high, hn::Set(du, 0xFFFF0000)));
#else
  const hn::Repartition<uint16_t, decltype(du)> dh;
  const auto both = hn::BitCast(du, hn::OddEven(hn::BitCast(dh, high), hn::BitCast(dh, lower)));
#endif
  Put<kStream>(du, both, reinterpret_cast<uint32_t*>(to));
}

struct Float32Format {
  using Stored = float;
  static constexpr bool kStreamsPairs = false;

  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const float* HWY_RESTRICT from) {
    return hn::LoadU(d, from);
  }
  template <bool kStream, class D>
  static HWY_INLINE void Store(D d, hn::Vec<D> value, float* HWY_RESTRICT to) {
    Put<kStream>(d, value, to);
  }
  template <class D>
  static HWY_INLINE void LoadPairs(D d, const float* HWY_RESTRICT from, hn::Vec<D>& x,
                                   hn::Vec<D>& y) {
    hn::LoadInterleaved2(d, from, x, y);
  }
  template <bool kStream, class D>
  static HWY_INLINE void StorePairs(D d, hn::Vec<D> x, hn::Vec<D> y, float* HWY_RESTRICT to) {
    hn::StoreInterleaved2(x, y, d, to);
  }
};

struct Bfloat16Format {
  using Stored = uint16_t;
  static constexpr bool kStreamsPairs = true;

  // The bfloat16 in the upper half of each lane; the lower half is rubbish. NaN stays NaN: one that
  // comes from bfloat16 elements and finite angles has a lower half of zeros, so that nothing
  // carries into the upper one.
  template <class D>
  static HWY_INLINE hn::Vec<Words<D>> Round(D, hn::Vec<D> value) {
    const Words<D> du;
    const auto bits = hn::BitCast(du, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    return hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
  }

  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint16_t* HWY_RESTRICT from) {
    const Words<D> du;
    const Halves<D> dh;
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, from))));
  }
  template <bool kStream, class D>
  static HWY_INLINE void Store(D d, hn::Vec<D> value, uint16_t* HWY_RESTRICT to) {
    StoreLow16<kStream>(d, hn::ShiftRight<16>(Round(d, value)), to);
  }
  // A pair is one 32-bit word with x in its lower half.
  template <class D>
  static HWY_INLINE void LoadPairs(D d, const uint16_t* HWY_RESTRICT from, hn::Vec<D>& x,
                                   hn::Vec<D>& y) {
    const Words<D> du;
    const auto pair = hn::LoadU(du, reinterpret_cast<const uint32_t*>(from));
    x = hn::BitCast(d, hn::ShiftLeft<16>(pair));
    y = hn::BitCast(d, hn::And(pair, hn::Set(du, 0xFFFF0000)));
  }
  template <bool kStream, class D>
  static HWY_INLINE void StorePairs(D d, hn::Vec<D> x, hn::Vec<D> y, uint16_t* HWY_RESTRICT to) {
    PutHighHalves<kStream>(d, Round(d, x), Round(d, y), to);
  }
};

struct Float16Format {
  using Stored = uint16_t;
  static constexpr bool kStreamsPairs = true;

  // Load and Store take adjacent elements. Widen and Narrow go between fp32 lanes and float16 in
  // the low 16 bits of each lane, the others zero.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)
  // The machine's own conversions, which round to nearest even; Highway's emulation elsewhere does
  // not promise that.
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint16_t* HWY_RESTRICT from) {
    const hn::Rebind<hwy::float16_t, D> df16;
    return hn::PromoteTo(d, hn::BitCast(df16, hn::LoadU(Halves<D>(), from)));
  }
  template <bool kStream, class D>
  static HWY_INLINE void Store(D, hn::Vec<D> value, uint16_t* HWY_RESTRICT to) {
    const hn::Rebind<hwy::float16_t, D> df16;
    const Halves<D> dh;
    Put<kStream>(dh, hn::BitCast(dh, hn::DemoteTo(df16, value)), to);
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> Widen(D d, hn::Vec<Words<D>> half) {
    const hn::RebindToSigned<D> di;
    const hn::Rebind<hwy::float16_t, D> df16;
    return hn::PromoteTo(d, hn::BitCast(df16, hn::DemoteTo(Halves<D>(), hn::BitCast(di, half))));
  }
  template <class D>
  static HWY_INLINE hn::Vec<Words<D>> Narrow(D, hn::Vec<D> value) {
    const hn::Rebind<hwy::float16_t, D> df16;
    return hn::PromoteTo(Words<D>(), hn::BitCast(Halves<D>(), hn::DemoteTo(df16, value)));
  }
#else
  // As FloatFromFloat16 and Float16FromFloat.
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint16_t* HWY_RESTRICT from) {
    return Widen(d, hn::PromoteTo(Words<D>(), hn::LoadU(Halves<D>(), from)));
  }
  template <bool kStream, class D>
  static HWY_INLINE void Store(D d, hn::Vec<D> value, uint16_t* HWY_RESTRICT to) {
    StoreLow16<kStream>(d, Narrow(d, value), to);
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> Widen(D d, hn::Vec<Words<D>> half) {
    const Words<D> du;
    const auto sign = hn::ShiftLeft<16>(hn::And(half, hn::Set(du, 0x8000)));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(half, hn::Set(du, 0x7FFF)));
    const auto scaled = hn::BitCast(du, hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112F)));
    const auto special = hn::Or(magnitude, hn::Set(du, 0x7F800000));
    const auto is_special =
        hn::RebindMask(du, hn::Ge(hn::BitCast(d, magnitude), hn::Set(d, 0x1p-96F)));
    return hn::BitCast(d, hn::Or(sign, hn::IfThenElse(is_special, special, scaled)));
  }
  template <class D>
  static HWY_INLINE hn::Vec<Words<D>> Narrow(D d, hn::Vec<D> value) {
    const Words<D> du;
    const auto bits = hn::BitCast(du, value);
    const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 0x8000));
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFF));
    const auto absolute = hn::BitCast(d, magnitude);
    const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1));
    const auto rebiased = hn::Sub(magnitude, hn::Set(du, 0x38000000 - 0xFFF));
    const auto normal = hn::ShiftRight<13>(hn::Add(rebiased, odd));
    const auto subnormal =
        hn::Sub(hn::BitCast(du, hn::Add(absolute, hn::Set(d, 0.5F))), hn::Set(du, 0x3F000000));
    const auto is_small = hn::RebindMask(du, hn::Lt(absolute, hn::Set(d, 0x1p-14F)));
    const auto is_large = hn::RebindMask(du, hn::Ge(absolute, hn::Set(d, 0x1p16F)));
    const auto is_nan = hn::RebindMask(du, hn::IsNaN(value));
    auto result = hn::IfThenElse(is_small, subnormal, normal);
    result = hn::IfThenElse(is_large, hn::Set(du, 0x7C00), result);
    return hn::Or(sign, hn::IfThenElse(is_nan, hn::Set(du, 0x7E00), result));
  }
#endif

  // A pair is one 32-bit word with x in its lower half.
  template <class D>
  static HWY_INLINE void LoadPairs(D d, const uint16_t* HWY_RESTRICT from, hn::Vec<D>& x,
                                   hn::Vec<D>& y) {
    const Words<D> du;
    const auto pair = hn::LoadU(du, reinterpret_cast<const uint32_t*>(from));
    x = Widen(d, hn::And(pair, hn::Set(du, 0xFFFF)));
    y = Widen(d, hn::ShiftRight<16>(pair));
  }
  template <bool kStream, class D>
  static HWY_INLINE void StorePairs(D d, hn::Vec<D> x, hn::Vec<D> y, uint16_t* HWY_RESTRICT to) {
    const Words<D> du;
    Put<kStream>(du, hn::Or(Narrow(d, x), hn::ShiftLeft<16>(Narrow(d, y))),
                 reinterpret_cast<uint32_t*>(to));
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace semshare
HWY_AFTER_NAMESPACE();

#endif  // SEMSHARE_KERNELS_CPU_REALIGN_FORMATS_INL_H_
