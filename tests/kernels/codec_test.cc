#include "kernels/codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace semshare {
namespace {

// The value of an E4M3 byte by the definition of the format. REQUIRES: not NaN.
double Fp8Value(int byte) {
  const int exponent = (byte >> 3) & 15;
  const int mantissa = byte & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (byte & 0x80) != 0 ? -magnitude : magnitude;
}

bool IsNan(int byte) { return (byte & 0x7F) == 0x7F; }

TEST(CodecTest, EveryFp8IsWhatTheFormatSays) {
  for (int byte = 0; byte < 256; ++byte) {
    const float value = FloatFromFp8E4m3(static_cast<uint8_t>(byte));
    if (IsNan(byte)) {
      EXPECT_TRUE(std::isnan(value));
    } else {
      EXPECT_EQ(value, Fp8Value(byte)) << byte;
      EXPECT_EQ(std::signbit(value), (byte & 0x80) != 0);
    }
    EXPECT_EQ(Fp8E4m3FromFloat(value), byte);
  }
  static_assert(FloatFromFp8E4m3(0x7E) == 448.0F && FloatFromFp8E4m3(0x01) == 0x1p-9F);
}

TEST(CodecTest, Fp8RoundsToNearestEvenAndSaturates) {
  for (int byte = 0; byte < 0x7E; ++byte) {  // up to the last but one
    const double low = Fp8Value(byte);
    const double high = Fp8Value(byte + 1);
    const float tie = static_cast<float>((low + high) / 2);  // exact
    EXPECT_EQ(Fp8E4m3FromFloat(tie), byte % 2 == 0 ? byte : byte + 1) << byte;
    const float above = std::nextafter(tie, 1000.0F);
    const float below = std::nextafter(tie, -1000.0F);
    EXPECT_EQ(Fp8E4m3FromFloat(above), byte + 1);
    EXPECT_EQ(Fp8E4m3FromFloat(below), byte);
    EXPECT_EQ(Fp8E4m3FromFloat(-above), (byte + 1) | 0x80);
  }
  for (const float large :
       {448.0F, 449.0F, 480.0F, 1e30F, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(Fp8E4m3FromFloat(large), 0x7E);
    EXPECT_EQ(Fp8E4m3FromFloat(-large), 0xFE);
  }
  EXPECT_EQ(Fp8E4m3FromFloat(std::numeric_limits<float>::quiet_NaN()) & 0x7F, 0x7F);
}

TEST(CodecTest, EveryInt8) {
  for (int value = -128; value < 128; ++value) {
    EXPECT_EQ(FloatFromInt8(static_cast<uint8_t>(value)), static_cast<float>(value));
  }
}

TEST(CodecTest, ErrorsAreWithinTheStatedBounds) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  for (const float size : {1e-30F, 1e-3F, 1.0F, 300.0F, 1e30F}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<float> values(128);
      for (float& value : values) value = size * normal(random);
      values[5] = 0;
      std::vector<uint8_t> payload(values.size());
      for (const Codec codec : {Codec::kInt8, Codec::kFp8E4m3}) {
        const float scale = EncodeHead(codec, values, payload.data());
        for (size_t i = 0; i < values.size(); ++i) {
          const bool is_int8 = codec == Codec::kInt8;
          const float decoded =
              (is_int8 ? FloatFromInt8(payload[i]) : FloatFromFp8E4m3(payload[i])) * scale;
          const double x = std::abs(values[i]);
          const double bound = is_int8 ? scale / 2.0 : x / 16 + scale / 1024.0;
          ASSERT_LE(std::abs(double{decoded} - values[i]), bound + x * 0x1p-20) << size << " " << i;
        }
      }
    }
  }
}

TEST(CodecTest, TheLargestElementIsKept) {
  const std::vector<float> values = {0.5F, -3.0F, 1.0F};
  std::vector<uint8_t> payload(3);
  EXPECT_EQ(EncodeHead(Codec::kInt8, values, payload.data()), 3.0F / 127);
  EXPECT_EQ(payload[1], static_cast<uint8_t>(-127));
  EXPECT_EQ(EncodeHead(Codec::kFp8E4m3, values, payload.data()), 3.0F / 448);
  EXPECT_EQ(payload[1], 0xFE);
}

TEST(CodecTest, ZerosHaveScaleZero) {
  const std::vector<float> values(4, 0.0F);
  for (const Codec codec : {Codec::kInt8, Codec::kFp8E4m3}) {
    std::vector<uint8_t> payload(4, 9);
    EXPECT_EQ(EncodeHead(codec, values, payload.data()), 0.0F);
    EXPECT_EQ(payload, std::vector<uint8_t>(4, 0));
  }
  EXPECT_EQ(EncodeHead(Codec::kInt8, {}, nullptr), 0.0F);
}

}  // namespace
}  // namespace semshare
