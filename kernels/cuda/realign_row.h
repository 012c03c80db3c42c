// One row of one plane, realigned by the lanes of a warp: all of the realign kernel but its grid.
//
// `lane` of `lanes` threads work on a row together, each on every lanes-th unit. A unit is 16 bytes
// at the destination: elements to copy, or, half-split, the first elements of pairs whose second
// ones lie half the rotary range behind. Rows whose addresses are not aligned, and shapes that are
// not made of units, go element by element. Nothing is shared between lanes, so the order in which
// they run plays no part; tests run them one after another on the CPU.
//
// Every row is checked before it is touched: tables in device memory have been seen by nobody else.
//
// Thread-safe: pure functions; constexpr templates, so that device code may call them.
#ifndef SEMSHARE_KERNELS_CUDA_REALIGN_ROW_H_
#define SEMSHARE_KERNELS_CUDA_REALIGN_ROW_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/realign_launch.h"
#include "kernels/cuda/vec.h"
#include "kernels/elements.h"
#include "kernels/rotary.h"

namespace semshare {

// Where a row comes from and goes to.
struct RowPlace {
  enum State { kSkipped, kBad, kGood };

  State state = kBad;
  const std::byte* source = nullptr;
  const std::byte* scales = nullptr;
  const float* angles = nullptr;  // null: the row is copied
  std::byte* destination = nullptr;
};

// kBad: a number of the row leads outside the plane's memory.
template <class Source>
constexpr RowPlace PlaceRow(const RealignLaunch& launch, const RealignPlane& plane,
                            const RealignRow& row, bool scaled) {
  RowPlace place;
  if (row.slot < 0) {
    place.state = RowPlace::kSkipped;
    return place;
  }
  constexpr int64_t kStored = sizeof(typename Source::Stored);
  const int64_t row_bytes = int64_t{launch.heads} * launch.width * kStored;
  const int64_t scale_bytes = scaled ? int64_t{launch.heads} * 4 : 0;
  // No sum overflows: chunk_offset is below 2^60 once it is known to lie within the source, a
  // product below 2^62.
  if (row.chunk_token < 0 || row.chunk_offset < 0 || row.chunk_offset > plane.source_bytes ||
      row.chunk_offset % (scaled ? 4 : kStored) != 0 || row.slot >= launch.slot_limit) {
    return place;
  }
  const int64_t begin = row.chunk_offset + row.chunk_token * row_bytes;
  const int64_t scale_begin = row.chunk_offset + row.chunk_token * scale_bytes;
  const int64_t to = row.slot / launch.block_tokens * launch.block_stride +
                     row.slot % launch.block_tokens * launch.token_stride;
  const bool rotated = plane.rotates != 0 && row.angle_row != -1;
  const bool angle_ok =
      !rotated || (row.angle_row >= launch.angle_begin && row.angle_row < launch.angle_end);
  if (!angle_ok || begin + row_bytes > plane.source_bytes ||
      (scaled && scale_begin + scale_bytes > plane.scale_bytes) || to + launch.extent_low < 0 ||
      to + launch.extent_high > plane.destination_bytes) {
    return place;
  }
  place.state = RowPlace::kGood;
  place.source = plane.source + begin;
  place.scales = plane.scales + scale_begin;
  place.destination = plane.destination + to;
  if (rotated) {
    place.angles =
        launch.angles + int64_t{row.angle_row - launch.angle_begin} * launch.rotary_width;
  }
  return place;
}

template <class Access, class Element, Codec kCodec>
class RowRealigner {
  using Source = Coded<Element, kCodec>;
  using Stored = typename Source::Stored;
  using Target = typename Element::Stored;

  static constexpr bool kScaled = kCodec != Codec::kRaw;
  static constexpr int kStoredBytes = sizeof(Stored);
  static constexpr int kTargetBytes = sizeof(Target);
  static constexpr int kUnit = 16 / kTargetBytes;  // elements
  // Loads of a lane in flight before the first store: a row of 2 KiB is four units for each of 32
  // lanes, to copy, or two pairs of units, to turn.
  static constexpr int kCopyBatch = 4;
  static constexpr int kTurnBatch = 2;

  // What a unit is in the source.
  struct alignas(kUnit* kStoredBytes) SourceUnit {
    uint32_t words[kUnit * kStoredBytes / 4];
  };

 public:
  constexpr RowRealigner(const RealignLaunch& launch, const RowPlace& place)
      : launch_(launch), place_(place), head_bytes_(launch.width * kStoredBytes) {}

  constexpr void Run(int lane, int lanes) const {
    if (launch_.vectors && Aligned()) {
      RunUnits(lane, lanes);
    } else {
      RunElements(lane, lanes);
    }
  }

 private:
  constexpr bool Aligned() const {
    const auto source = reinterpret_cast<uintptr_t>(place_.source);
    const auto target = reinterpret_cast<uintptr_t>(place_.destination);
    const auto angles = reinterpret_cast<uintptr_t>(place_.angles);
    return source % sizeof(SourceUnit) == 0 && (target | angles) % 16 == 0;
  }

  constexpr void RunUnits(int lane, int lanes) const {
    const int32_t head_units = launch_.width / kUnit;
    if (place_.angles == nullptr) {
      CopyUnits(lane, lanes, head_units, head_units);
      return;
    }
    const bool split = launch_.pairing == RotaryPairing::kHalfSplit;
    const int32_t rotary_units = launch_.rotary_width / kUnit;
    if (split) {
      TurnHalves(lane, lanes, rotary_units / 2);
    } else {
      TurnPairs(lane, lanes, rotary_units);
    }
    CopyUnits(lane, lanes, head_units - rotary_units, launch_.rotary_begin / kUnit);
  }

  // The units of each head that are not rotated: `units` of them, those from `gap` on behind the
  // rotary range.
  constexpr void CopyUnits(int lane, int lanes, int32_t units, int32_t gap) const {
    const int32_t all = launch_.heads * units;
    for (int32_t first = lane; first < all; first += kCopyBatch * lanes) {
      SourceUnit from[kCopyBatch] = {};
      Unroll<kCopyBatch>([&](auto b) {
        const int32_t i = first + b * lanes;
        if (i < all) from[b] = LoadUnit(i / units, UnitElement(i % units, gap));
      });
      Unroll<kCopyBatch>([&](auto b) {
        const int32_t i = first + b * lanes;
        if (i >= all) return;
        StoreUnit(CopyUnit(from[b], Scale(i / units)), i / units, UnitElement(i % units, gap));
      });
    }
  }

  constexpr int32_t UnitElement(int32_t unit, int32_t gap) const {
    return unit * kUnit + (unit < gap ? 0 : launch_.rotary_width);
  }

  constexpr Vec16 CopyUnit(const SourceUnit& from, float scale) const {
    Vec16 to = {};
    Unroll<kUnit>([&](auto e) {
      const Stored stored = static_cast<Stored>(Unpack<kStoredBytes>(from.words, e));
      Pack<kTargetBytes>(Source::Copy(stored, scale), to.words, e);
    });
    return to;
  }

  // Half-split pairs: unit k of a head holds the x of pairs [k * kUnit, (k + 1) * kUnit).
  constexpr void TurnHalves(int lane, int lanes, int32_t units) const {
    const int32_t half = launch_.rotary_width / 2;
    const int32_t all = launch_.heads * units;
    for (int32_t first = lane; first < all; first += kTurnBatch * lanes) {
      SourceUnit x[kTurnBatch] = {};
      SourceUnit y[kTurnBatch] = {};
      Unroll<kTurnBatch>([&](auto b) {
        const int32_t i = first + b * lanes;
        if (i >= all) return;
        const int32_t element = launch_.rotary_begin + i % units * kUnit;
        x[b] = LoadUnit(i / units, element);
        y[b] = LoadUnit(i / units, element + half);
      });
      Unroll<kTurnBatch>([&](auto b) {
        const int32_t i = first + b * lanes;
        if (i < all) TurnUnits(x[b], y[b], i / units, i % units * kUnit);
      });
    }
  }

  // Pairs [j, j + kUnit) of one head.
  constexpr void TurnUnits(const SourceUnit& x, const SourceUnit& y, int32_t head,
                           int32_t j) const {
    const int32_t half = launch_.rotary_width / 2;
    const float scale = Scale(head);
    Vec16 turned_x = {};
    Vec16 turned_y = {};
    float cosines[kUnit] = {};
    float sines[kUnit] = {};
    LoadAngles<kUnit>(j, cosines);
    LoadAngles<kUnit>(half + j, sines);
    Unroll<kUnit>([&](auto e) {
      const RotatedPair pair =
          RotatePair(Value(x, e, scale), Value(y, e, scale), cosines[e], sines[e]);
      Pack<kTargetBytes>(Element::Store(pair.x), turned_x.words, e);
      Pack<kTargetBytes>(Element::Store(pair.y), turned_y.words, e);
    });
    StoreUnit(turned_x, head, launch_.rotary_begin + j);
    StoreUnit(turned_y, head, launch_.rotary_begin + half + j);
  }

  // Interleaved pairs: a unit holds kUnit / 2 of them.
  constexpr void TurnPairs(int lane, int lanes, int32_t units) const {
    constexpr int kPairs = kUnit / 2;
    const int32_t half = launch_.rotary_width / 2;
    const int32_t all = launch_.heads * units;
    for (int32_t i = lane; i < all; i += lanes) {
      const int32_t head = i / units;
      const int32_t unit = i % units;
      const int32_t element = launch_.rotary_begin + unit * kUnit;
      const SourceUnit from = LoadUnit(head, element);
      const float scale = Scale(head);
      float cosines[kPairs] = {};
      float sines[kPairs] = {};
      LoadAngles<kPairs>(unit * kPairs, cosines);
      LoadAngles<kPairs>(half + unit * kPairs, sines);
      Vec16 to = {};
      Unroll<kPairs>([&](auto p) {
        const RotatedPair pair = RotatePair(Value(from, 2 * p, scale),
                                            Value(from, 2 * p + 1, scale), cosines[p], sines[p]);
        Pack<kTargetBytes>(Element::Store(pair.x), to.words, 2 * p);
        Pack<kTargetBytes>(Element::Store(pair.y), to.words, 2 * p + 1);
      });
      StoreUnit(to, head, element);
    }
  }

  // Any strides, any alignment of elements.
  constexpr void RunElements(int lane, int lanes) const {
    const bool turned = place_.angles != nullptr;
    const int32_t copied = launch_.width - (turned ? launch_.rotary_width : 0);
    const int32_t gap = turned ? launch_.rotary_begin : launch_.width;
    for (int32_t i = lane; i < launch_.heads * copied; i += lanes) {
      const int32_t head = i / copied;
      const int32_t e = i % copied;
      const int32_t element = e < gap ? e : e + launch_.rotary_width;
      StoreElement(Source::Copy(LoadElement(head, element), Scale(head)), head, element);
    }
    if (!turned) return;
    const int32_t half = launch_.rotary_width / 2;
    for (int32_t i = lane; i < launch_.heads * half; i += lanes) {
      const int32_t head = i / half;
      const int32_t j = i % half;
      const int32_t first = launch_.rotary_begin + PairFirst(j, launch_.pairing);
      const int32_t second =
          launch_.rotary_begin + PairSecond(j, launch_.rotary_width, launch_.pairing);
      const float scale = Scale(head);
      const float x = Source::Load(LoadElement(head, first), scale);
      const float y = Source::Load(LoadElement(head, second), scale);
      const RotatedPair pair = RotatePair(x, y, LoadAngle(j), LoadAngle(half + j));
      StoreElement(Element::Store(pair.x), head, first);
      StoreElement(Element::Store(pair.y), head, second);
    }
  }

  constexpr SourceUnit LoadUnit(int32_t head, int32_t element) const {
    return Access::template Load<SourceUnit>(place_.source + head * head_bytes_ +
                                             element * kStoredBytes);
  }
  constexpr void StoreUnit(const Vec16& unit, int32_t head, int32_t element) const {
    Access::template Store<Vec16>(
        unit, place_.destination + head * launch_.head_stride + element * kTargetBytes);
  }
  constexpr Stored LoadElement(int32_t head, int32_t element) const {
    return Access::template Load<Stored>(place_.source + head * head_bytes_ +
                                         element * kStoredBytes);
  }
  constexpr void StoreElement(Target stored, int32_t head, int32_t element) const {
    Access::template Store<Target>(
        stored, place_.destination + head * launch_.head_stride + element * launch_.element_stride);
  }

  constexpr float Value(const SourceUnit& unit, int e, float scale) const {
    return Source::Load(static_cast<Stored>(Unpack<kStoredBytes>(unit.words, e)), scale);
  }

  constexpr float Scale(int32_t head) const {
    if constexpr (!kScaled) return 1;
    return Access::template Load<float>(place_.scales + head * 4);
  }

  constexpr float LoadAngle(int32_t at) const {
    return Access::template Load<float>(reinterpret_cast<const std::byte*>(place_.angles + at));
  }
  // kCount is 2, 4 or 8. REQUIRES: Aligned, and `at` a multiple of min(4, kCount).
  template <int kCount>
  constexpr void LoadAngles(int32_t at, float* values) const {
    using Unit = std::conditional_t<kCount == 2, Vec8, Vec16>;
    constexpr int kPer = sizeof(Unit) / 4;
    Unroll<kCount / kPer>([&](auto u) {
      const Unit unit = Access::template Load<Unit>(
          reinterpret_cast<const std::byte*>(place_.angles + at + u * kPer));
      Unroll<kPer>([&](auto i) { values[u * kPer + i] = std::bit_cast<float>(unit.words[i]); });
    });
  }

  const RealignLaunch& launch_;
  const RowPlace& place_;
  const int64_t head_bytes_;  // in the source
};

// Row `row` of plane `plane`. False if the row is bad: nothing is written then.
template <class Access, class Element, Codec kCodec>
constexpr bool RealignOneRow(const RealignLaunch& launch, int plane, int64_t row, int lane,
                             int lanes) {
  const RowPlace place = PlaceRow<Coded<Element, kCodec>>(launch, launch.planes[plane],
                                                          launch.rows[row], kCodec != Codec::kRaw);
  if (place.state == RowPlace::kGood) {
    RowRealigner<Access, Element, kCodec>(launch, place).Run(lane, lanes);
  }
  return place.state != RowPlace::kBad;
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_REALIGN_ROW_H_
