#include "kernels/float_convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace semshare {
namespace {

TEST(FloatConvertTest, EveryBfloat16ComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t value = static_cast<uint16_t>(bits);
    const float wide = FloatFromBfloat16(value);
    if (std::isnan(wide)) {
      EXPECT_EQ(Bfloat16FromFloat(wide), value | 0x40);
    } else {
      EXPECT_EQ(Bfloat16FromFloat(wide), value);
    }
  }
}

TEST(FloatConvertTest, EveryFloat16ComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t value = static_cast<uint16_t>(bits);
    const float wide = FloatFromFloat16(value);
    if ((value & 0x7FFF) > 0x7C00) {
      EXPECT_TRUE(std::isnan(wide));
      EXPECT_GT(Float16FromFloat(wide) & 0x7FFF, 0x7C00);
    } else {
      EXPECT_EQ(Float16FromFloat(wide), value);
    }
  }
}

TEST(FloatConvertTest, KnownValues) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FloatFromFloat16(0x3C00), 1.0F);
  EXPECT_EQ(FloatFromFloat16(0x0001), 0x1p-24F);
  EXPECT_EQ(FloatFromFloat16(0xFBFF), -65504.0F);
  EXPECT_EQ(FloatFromFloat16(0xFC00), -kInfinity);
  EXPECT_EQ(Float16FromFloat(65519.996F), 0x7BFF);  // below the tie
  EXPECT_EQ(Float16FromFloat(65520.0F), 0x7C00);    // the tie goes to even: infinity
  EXPECT_EQ(Float16FromFloat(1e30F), 0x7C00);
  EXPECT_EQ(Float16FromFloat(0x1p-25F), 0x0000);  // the tie goes to even: zero
  EXPECT_EQ(Float16FromFloat(0x1.8p-24F), 0x0002);
  EXPECT_EQ(Float16FromFloat(-0x1.000002p-25F), 0x8001);
  EXPECT_EQ(Float16FromFloat(0x1.FFFp-15F), 0x0400);  // rounds up to the smallest normal
  EXPECT_EQ(Bfloat16FromFloat(1.00390625F), 0x3F80);  // tie to even, down
  EXPECT_EQ(Bfloat16FromFloat(1.01171875F), 0x3F82);  // tie to even, up
  EXPECT_EQ(Bfloat16FromFloat(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(Bfloat16FromFloat(std::bit_cast<float>(0x7F800001U)), 0x7FC0);  // stays NaN
  EXPECT_EQ(Bfloat16FromFloat(std::bit_cast<float>(0xFFFFFFFFU)), 0xFFFF);
}

}  // namespace
}  // namespace semshare
