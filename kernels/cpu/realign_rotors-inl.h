// How realign.cc turns the rotary range of a row: rotors, one for each format and pairing. Included
// once per instruction set, by realign.cc only.
//
// A rotor has
//   Stored         the element's bits
//   Fits           whether it can turn `half` pairs with vectors of d
//   StreamAlign    the alignment in bytes of destination and halves with which Head can write past
//                  the caches; 0: it can not
//   Prepare        the row's angles, cos[half] then sin[half], in the order that Head takes them;
//                  `scratch` is float[4 * half]. Done once for all heads of a row.
//   Head           turns one head; kStream: past the caches
// Thread-safe: pure functions.
#if defined(SEMSHARE_KERNELS_CPU_REALIGN_ROTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEMSHARE_KERNELS_CPU_REALIGN_ROTORS_INL_H_
#undef SEMSHARE_KERNELS_CPU_REALIGN_ROTORS_INL_H_
#else
#define SEMSHARE_KERNELS_CPU_REALIGN_ROTORS_INL_H_
#endif

#include <cstddef>

#include "hwy/highway.h"
#include "kernels/cpu/realign_formats-inl.h"
#include "kernels/rotary.h"

HWY_BEFORE_NAMESPACE();
namespace semshare {
namespace HWY_NAMESPACE {

// Alignment for streamed stores of so many bytes: narrower ones than 16 do not exist.
HWY_INLINE size_t Streamed(size_t bytes) { return bytes < 16 ? 0 : bytes; }

template <class V>
struct Turned {
  V x, y;
};

template <class V>
HWY_INLINE Turned<V> Turn(V x, V y, V cosine, V sine) {
  return {hn::NegMulAdd(y, sine, hn::Mul(x, cosine)), hn::MulAdd(y, cosine, hn::Mul(x, sine))};
}

// Any format and pairing, with the angles as they come.
template <class Format, RotaryPairing kPairing>
struct PlainRotor {
  using Stored = typename Format::Stored;

  template <class D>
  static bool Fits(D d, size_t half) {
    return half >= hn::Lanes(d);
  }

  template <class D>
  static size_t StreamAlign(D d, size_t half) {
    if (half % hn::Lanes(d) != 0) return 0;
    if (kPairing == RotaryPairing::kHalfSplit) return Streamed(hn::Lanes(d) * sizeof(Stored));
    return Format::kStreamsPairs ? Streamed(2 * hn::Lanes(d) * sizeof(Stored)) : 0;
  }

  template <class D>
  static HWY_INLINE const float* Prepare(D, const float* angles, size_t, float*) {
    return angles;
  }

  template <bool kStream, class D>
  static HWY_INLINE void Head(D d, const Stored* HWY_RESTRICT source,
                              Stored* HWY_RESTRICT destination, const float* HWY_RESTRICT angles,
                              size_t half) {
    const size_t lanes = hn::Lanes(d);
    size_t j = 0;
    for (; j + lanes <= half; j += lanes) Pairs<kStream>(d, source, destination, angles, half, j);
    // The last vector overlaps the one before it and writes the same values again: source and
    // destination are different memory.
    if (j < half) Pairs<kStream>(d, source, destination, angles, half, half - lanes);
  }

 private:
  // One vector of pairs from pair j on.
  template <bool kStream, class D>
  static HWY_INLINE void Pairs(D d, const Stored* HWY_RESTRICT source,
                               Stored* HWY_RESTRICT destination, const float* HWY_RESTRICT angles,
                               size_t half, size_t j) {
    hn::Vec<D> x, y;
    if constexpr (kPairing == RotaryPairing::kHalfSplit) {
      x = Format::Load(d, source + j);
      y = Format::Load(d, source + half + j);
    } else {
      Format::LoadPairs(d, source + 2 * j, x, y);
    }
    const auto turned = Turn(x, y, hn::LoadU(d, angles + j), hn::LoadU(d, angles + half + j));
    if constexpr (kPairing == RotaryPairing::kHalfSplit) {
      Format::template Store<kStream>(d, turned.x, destination + j);
      Format::template Store<kStream>(d, turned.y, destination + half + j);
    } else {
      Format::template StorePairs<kStream>(d, turned.x, turned.y, destination + 2 * j);
    }
  }
};

// bfloat16 in halves, two elements a word: even and odd ones take a shift and a mask, where whole
// vectors of them would have to be widened and packed.
struct Bfloat16WordRotor {
  using Stored = uint16_t;

  template <class D>
  static bool Fits(D d, size_t half) {
    return half % (2 * hn::Lanes(d)) == 0;
  }

  template <class D>
  static size_t StreamAlign(D d, size_t) {
    return Streamed(2 * hn::Lanes(d) * sizeof(Stored));
  }

  // Even, then odd angles of each block of two vectors.
  template <class D>
  static HWY_INLINE const float* Prepare(D d, const float* HWY_RESTRICT angles, size_t half,
                                         float* HWY_RESTRICT scratch) {
    const size_t lanes = hn::Lanes(d);
    for (size_t j = 0; j < 2 * half; j += 2 * lanes) {
      hn::Vec<D> even, odd;
      hn::LoadInterleaved2(d, angles + j, even, odd);
      hn::StoreU(even, d, scratch + j);
      hn::StoreU(odd, d, scratch + j + lanes);
    }
    return scratch;
  }

  template <bool kStream, class D>
  static HWY_INLINE void Head(D d, const Stored* HWY_RESTRICT source,
                              Stored* HWY_RESTRICT destination, const float* HWY_RESTRICT angles,
                              size_t half) {
    const size_t lanes = hn::Lanes(d);
    for (size_t j = 0; j < half; j += 2 * lanes) {
      hn::Vec<D> x[2], y[2];
      Bfloat16Format::LoadPairs(d, source + j, x[0], x[1]);
      Bfloat16Format::LoadPairs(d, source + half + j, y[0], y[1]);
      const auto even = Turn(x[0], y[0], hn::LoadU(d, angles + j), hn::LoadU(d, angles + half + j));
      const auto odd = Turn(x[1], y[1], hn::LoadU(d, angles + j + lanes),
                            hn::LoadU(d, angles + half + j + lanes));
      Bfloat16Format::StorePairs<kStream>(d, even.x, odd.x, destination + j);
      Bfloat16Format::StorePairs<kStream>(d, even.y, odd.y, destination + half + j);
    }
  }
};

// Interleaved pairs without taking them apart: element * cosine + neighbour * sine, where the sine
// of a pair's first element is negative.
template <class Format>
struct NeighbourRotor {
  using Stored = typename Format::Stored;

  template <class D>
  static bool Fits(D d, size_t half) {
    return half % hn::Lanes(d) == 0 && hn::Lanes(d) > 1;
  }

  template <class D>
  static size_t StreamAlign(D d, size_t) {
    return Streamed(hn::Lanes(d) * sizeof(Stored));
  }

  // Each cosine twice; after all of them each sine twice, the first one negative.
  template <class D>
  static HWY_INLINE const float* Prepare(D d, const float* HWY_RESTRICT angles, size_t half,
                                         float* HWY_RESTRICT scratch) {
    const size_t lanes = hn::Lanes(d);
    for (size_t j = 0; j < half; j += lanes) {
      const auto cosine = hn::LoadU(d, angles + j);
      const auto sine = hn::LoadU(d, angles + half + j);
      hn::StoreInterleaved2(cosine, cosine, d, scratch + 2 * j);
      hn::StoreInterleaved2(hn::Neg(sine), sine, d, scratch + 2 * half + 2 * j);
    }
    return scratch;
  }

  template <bool kStream, class D>
  static HWY_INLINE void Head(D d, const Stored* HWY_RESTRICT source,
                              Stored* HWY_RESTRICT destination, const float* HWY_RESTRICT angles,
                              size_t half) {
    const size_t lanes = hn::Lanes(d);
    for (size_t e = 0; e < 2 * half; e += lanes) {
      const auto value = Format::Load(d, source + e);
      const auto turned = hn::MulAdd(hn::Reverse2(d, value), hn::LoadU(d, angles + 2 * half + e),
                                     hn::Mul(value, hn::LoadU(d, angles + e)));
      Format::template Store<kStream>(d, turned, destination + e);
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace semshare
HWY_AFTER_NAMESPACE();

#endif  // SEMSHARE_KERNELS_CPU_REALIGN_ROTORS_INL_H_
