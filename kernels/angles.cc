#include "kernels/angles.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

// Up to here the series below are good to 2e-14, far below an fp32 rounding.
constexpr double kMaxRemainder = 1.0 / 64;

// cos and sin for one distance at a time: rows of a run share it, and what a row's own rounding
// adds to the angle is a small remainder, for which a few terms of the series do. An exact sine
// costs ten times that, for every pair of every row.
class TurnTable {
 public:
  explicit TurnTable(const RotaryDescriptor& rotary)
      : rotary_(rotary),
        half_(rotary.inv_freq.size()),
        angle_(half_),
        cosine_(half_),
        sine_(half_),
        remainder_(half_) {}

  // Writes g cos phi, then g sin phi, to row[0, 2 * half).
  void Fill(const PositionPair& pair, float* row) {
    SetDistance(pair.target - pair.source);
    double largest = 0;
    for (size_t j = 0; j < half_; ++j) {
      const double phi = RotaryAngle(pair.target, rotary_.inv_freq[j], rotary_.angle_precision) -
                         RotaryAngle(pair.source, rotary_.inv_freq[j], rotary_.angle_precision);
      remainder_[j] = phi - angle_[j];
      largest = std::max(largest, std::abs(remainder_[j]));
    }
    if (largest <= kMaxRemainder) return FillBySeries(row);
    for (size_t j = 0; j < half_; ++j) {
      row[j] = static_cast<float>(std::cos(angle_[j] + remainder_[j]));
      row[half_ + j] = static_cast<float>(std::sin(angle_[j] + remainder_[j]));
    }
  }

 private:
  void SetDistance(int64_t distance) {
    if (known_ && distance == distance_) return;
    known_ = true;
    distance_ = distance;
    for (size_t j = 0; j < half_; ++j) {
      const double frequency = rotary_.angle_precision == AnglePrecision::kFloat32
                                   ? static_cast<float>(rotary_.inv_freq[j])
                                   : rotary_.inv_freq[j];
      angle_[j] = static_cast<double>(distance) * frequency;
      cosine_[j] = std::cos(angle_[j]);
      sine_[j] = std::sin(angle_[j]);
    }
  }

  void FillBySeries(float* row) const {
    for (size_t j = 0; j < half_; ++j) {
      const double d = remainder_[j];
      const double d2 = d * d;
      const double cosine = 1 - d2 * (0.5 - d2 * (1.0 / 24));
      const double sine = d * (1 - d2 * (1.0 / 6 - d2 * (1.0 / 120)));
      row[j] = static_cast<float>(cosine_[j] * cosine - sine_[j] * sine);
      row[half_ + j] = static_cast<float>(sine_[j] * cosine + cosine_[j] * sine);
    }
  }

  const RotaryDescriptor& rotary_;
  const size_t half_;
  bool known_ = false;
  int64_t distance_ = 0;
  std::vector<double> angle_, cosine_, sine_;  // of distance_
  std::vector<double> remainder_;
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
