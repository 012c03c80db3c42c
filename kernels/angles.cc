#include "kernels/angles.h"

#include <cmath>
#include <cstdint>

#include "kernels/base/status_macros.h"

// This file is compiled once per instruction set; the best one is chosen for each row.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/angles.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef SEMSHARE_KERNELS_ANGLES_ONCE
#define SEMSHARE_KERNELS_ANGLES_ONCE
namespace semshare {
namespace {

// Up to here the series below are good to 2e-14, far below an fp32 rounding.
constexpr double kMaxRemainder = 1.0 / 64;

// One distance: what rows that move by it share. Arrays of `half`.
struct Turn {
  size_t half = 0;
  const double* frequency = nullptr;
  const float* frequency32 = nullptr;  // null where angles are formed in fp64
  const double* angle = nullptr;       // distance * frequency
  const double* cosine = nullptr;      // of angle
  const double* sine = nullptr;
};

}  // namespace
}  // namespace semshare
#endif  // SEMSHARE_KERNELS_ANGLES_ONCE

HWY_BEFORE_NAMESPACE();
namespace semshare {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// cos and sin of angle + d for a small d: what a row's own rounding adds to its distance's angle.
// For turn.half of at least the tag's lanes. Returns false if some d is too large; row[0, 2 * half)
// means nothing then.
template <class D>
bool FillWithLanes(D d64, const Turn& turn, const PositionPair& pair, float* HWY_RESTRICT row) {
  const hn::Rebind<float, D> d32;
  const size_t lanes = hn::Lanes(d64);
  const auto target32 = hn::Set(d32, static_cast<float>(pair.target));
  const auto source32 = hn::Set(d32, static_cast<float>(pair.source));
  const auto target64 = hn::Set(d64, static_cast<double>(pair.target));
  const auto source64 = hn::Set(d64, static_cast<double>(pair.source));
  const auto one = hn::Set(d64, 1.0);
  auto largest = hn::Zero(d64);
  for (size_t next = 0; next < turn.half; next += lanes) {
    // The last vector overlaps the one before where the lanes do not divide.
    const size_t j = HWY_MIN(next, turn.half - lanes);
    auto phi = hn::Zero(d64);
    if (turn.frequency32 != nullptr) {
      const auto frequency = hn::LoadU(d32, turn.frequency32 + j);
      phi = hn::Sub(hn::PromoteTo(d64, hn::Mul(target32, frequency)),
                    hn::PromoteTo(d64, hn::Mul(source32, frequency)));
    } else {
      const auto frequency = hn::LoadU(d64, turn.frequency + j);
      phi = hn::Sub(hn::Mul(target64, frequency), hn::Mul(source64, frequency));
    }
    const auto d = hn::Sub(phi, hn::LoadU(d64, turn.angle + j));
    largest = hn::Max(largest, hn::Abs(d));
    const auto d2 = hn::Mul(d, d);
    const auto cosine =
        hn::NegMulAdd(d2, hn::NegMulAdd(d2, hn::Set(d64, 1.0 / 24), hn::Set(d64, 0.5)), one);
    const auto sine = hn::Mul(
        d,
        hn::NegMulAdd(d2, hn::NegMulAdd(d2, hn::Set(d64, 1.0 / 120), hn::Set(d64, 1.0 / 6)), one));
    const auto c = hn::LoadU(d64, turn.cosine + j);
    const auto s = hn::LoadU(d64, turn.sine + j);
    const auto x = hn::Sub(hn::Mul(c, cosine), hn::Mul(s, sine));
    const auto y = hn::Add(hn::Mul(s, cosine), hn::Mul(c, sine));
    hn::StoreU(hn::DemoteTo(d32, x), d32, row + j);
    hn::StoreU(hn::DemoteTo(d32, y), d32, row + turn.half + j);
  }
  return hn::AllTrue(d64, hn::Le(largest, hn::Set(d64, kMaxRemainder)));
}

bool FillBySeries(const Turn& turn, const PositionPair& pair, float* HWY_RESTRICT row) {
  const hn::ScalableTag<double> whole;
  if (turn.half >= hn::Lanes(whole)) return FillWithLanes(whole, turn, pair, row);
  const hn::CappedTag<double, 4> few;  // A narrow rotary part on wide vectors.
  return turn.half >= hn::Lanes(few) && FillWithLanes(few, turn, pair, row);
}

}  // namespace HWY_NAMESPACE
}  // namespace semshare
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace semshare {

HWY_EXPORT(FillBySeries);

namespace {

// cos and sin for one distance at a time: rows of a run share it, and what a row's own rounding
// adds to the angle is a small remainder, for which a few terms of the series do. An exact sine
// costs ten times that, for every pair of every row.
class TurnTable {
 public:
  explicit TurnTable(const RotaryDescriptor& rotary)
      : rotary_(rotary),
        half_(rotary.inv_freq.size()),
        frequency32_(rotary.inv_freq.begin(), rotary.inv_freq.end()),
        angle_(half_),
        cosine_(half_),
        sine_(half_) {}

  // Writes g cos phi, then g sin phi, to row[0, 2 * half).
  void Fill(const PositionPair& pair, float* row) {
    SetDistance(pair.target - pair.source);
    Turn turn{half_, rotary_.inv_freq.data(), nullptr, angle_.data(), cosine_.data(), sine_.data()};
    if (in_float32()) turn.frequency32 = frequency32_.data();
    if (HWY_DYNAMIC_DISPATCH(FillBySeries)(turn, pair, row)) return;
    for (size_t j = 0; j < half_; ++j) {
      const double phi = RotaryAngle(pair.target, rotary_.inv_freq[j], rotary_.angle_precision) -
                         RotaryAngle(pair.source, rotary_.inv_freq[j], rotary_.angle_precision);
      row[j] = static_cast<float>(std::cos(phi));
      row[half_ + j] = static_cast<float>(std::sin(phi));
    }
  }

 private:
  bool in_float32() const { return rotary_.angle_precision == AnglePrecision::kFloat32; }

  void SetDistance(int64_t distance) {
    if (known_ && distance == distance_) return;
    known_ = true;
    distance_ = distance;
    for (size_t j = 0; j < half_; ++j) {
      const double frequency = in_float32() ? frequency32_[j] : rotary_.inv_freq[j];
      angle_[j] = static_cast<double>(distance) * frequency;
      cosine_[j] = std::cos(angle_[j]);
      sine_[j] = std::sin(angle_[j]);
    }
  }

  const RotaryDescriptor& rotary_;
  const size_t half_;
  const std::vector<float> frequency32_;
  bool known_ = false;
  int64_t distance_ = 0;
  std::vector<double> angle_, cosine_, sine_;  // of distance_
};

}  // namespace

std::vector<float> BuildAngleTable(const RotaryDescriptor& rotary,
                                   absl::Span<const PositionPair> pairs) {
  const size_t half = rotary.inv_freq.size();
  SEMSHARE_CHECK(rotary.width >= 0 && half == static_cast<size_t>(rotary.width / 2));
  std::vector<float> table(pairs.size() * 2 * half);
  TurnTable turns(rotary);
  float* row = table.data();
  for (const PositionPair& pair : pairs) {
    turns.Fill(pair, row);
    row += 2 * half;
  }
  return table;
}

}  // namespace semshare
#endif  // HWY_ONCE
