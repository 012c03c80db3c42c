#include "kernels/angles.h"

#include <gtest/gtest.h>

#include <cmath>

namespace semshare {
namespace {

RotaryDescriptor Rotary(AnglePrecision precision, int half = 32) {
  RotaryDescriptor rotary;
  rotary.width = 2 * half;
  rotary.angle_precision = precision;
  for (int j = 0; j < half; ++j) {
    // The engine's own frequencies: fp32 values.
    rotary.inv_freq.push_back(static_cast<float>(std::pow(1e5, -j / static_cast<double>(half))));
  }
  return rotary;
}

TEST(AnglesTest, DifferenceOfAnglesAsTheEngineFormsThem) {
  for (const AnglePrecision precision : {AnglePrecision::kFloat32, AnglePrecision::kFloat64}) {
    const RotaryDescriptor rotary = Rotary(precision);
    std::vector<PositionPair> pairs = {{0, 0}, {0, 1}, {100, 50}, {12, 30000}, {4096, 4095}};
    // Runs of one distance, at positions where fp32 angles are coarse, and beyond what a series
    // does.
    for (int64_t i = 0; i < 3000; ++i) pairs.push_back({i * 43, i * 43 + 977});
    for (int64_t i = 0; i < 100; ++i) pairs.push_back({i, (int64_t{1} << 22) + 7919 * i});
    const std::vector<float> table = BuildAngleTable(rotary, pairs);
    ASSERT_EQ(table.size(), pairs.size() * 64);
    for (size_t i = 0; i < pairs.size(); ++i) {
      for (size_t j = 0; j < 32; ++j) {
        const double frequency = rotary.inv_freq[j];
        double target = static_cast<double>(pairs[i].target) * frequency;
        double source = static_cast<double>(pairs[i].source) * frequency;
        if (precision == AnglePrecision::kFloat32) {
          target = static_cast<float>(target);  // the exact product, rounded once
          source = static_cast<float>(source);
        }
        EXPECT_EQ(table[i * 64 + j], static_cast<float>(std::cos(target - source)));
        EXPECT_EQ(table[i * 64 + 32 + j], static_cast<float>(std::sin(target - source)));
      }
    }
  }
}

// Widths that no vector divides, and some that none fits in.
TEST(AnglesTest, AnyWidth) {
  for (const int half : {1, 2, 3, 5, 11, 48, 50}) {
    const RotaryDescriptor rotary = Rotary(AnglePrecision::kFloat32, half);
    std::vector<PositionPair> pairs;
    for (int64_t i = 0; i < 50; ++i) pairs.push_back({i, i + 321});
    const std::vector<float> table = BuildAngleTable(rotary, pairs);
    ASSERT_EQ(table.size(), pairs.size() * 2 * rotary.inv_freq.size());
    for (size_t i = 0; i < pairs.size(); ++i) {
      const float* row = table.data() + i * 2 * rotary.inv_freq.size();
      for (int j = 0; j < half; ++j) {
        const auto frequency = static_cast<float>(rotary.inv_freq[j]);
        const double phi = double{static_cast<float>(pairs[i].target) * frequency} -
                           double{static_cast<float>(pairs[i].source) * frequency};
        EXPECT_EQ(row[j], static_cast<float>(std::cos(phi))) << half;
        EXPECT_EQ(row[half + j], static_cast<float>(std::sin(phi))) << half;
      }
    }
  }
}

TEST(AnglesTest, PrecisionsDifferAtLargePositions) {
  const std::vector<PositionPair> pairs = {{17, 30000}};
  const std::vector<float> fp32 = BuildAngleTable(Rotary(AnglePrecision::kFloat32), pairs);
  const std::vector<float> fp64 = BuildAngleTable(Rotary(AnglePrecision::kFloat64), pairs);
  double largest = 0;
  for (size_t i = 0; i < fp32.size(); ++i) {
    largest = std::max(largest, std::abs(double{fp32[i]} - fp64[i]));
  }
  EXPECT_GT(largest, 1e-5);
  EXPECT_LT(largest, 2e-3);
}

TEST(AnglesTest, SamePositionIsTheIdentity) {
  const std::vector<PositionPair> pairs = {{777, 777}};
  const std::vector<float> table = BuildAngleTable(Rotary(AnglePrecision::kFloat32), pairs);
  for (size_t j = 0; j < 32; ++j) {
    EXPECT_EQ(table[j], 1.0F);
    EXPECT_EQ(table[32 + j], 0.0F);
  }
}

TEST(AnglesTest, EmptyInputs) {
  EXPECT_TRUE(BuildAngleTable(Rotary(AnglePrecision::kFloat32), {}).empty());
  const std::vector<PositionPair> pairs = {{1, 2}};
  EXPECT_TRUE(BuildAngleTable(RotaryDescriptor{}, pairs).empty());
}

}  // namespace
}  // namespace semshare
