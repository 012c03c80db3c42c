#include "kernels/elements.h"

#include <gtest/gtest.h>

namespace semshare {
namespace {

// Usable where device code needs them: in constant expressions, without any run-time support.
static_assert(Bfloat16Element::Load(0x3F80) == 1.0F);
static_assert(Float16Element::Store(65520.0F) == 0x7C00);
static_assert(Coded<Float32Element, Codec::kInt8>::Load(0xFF, 0.5F) == -0.5F);
static_assert(Coded<Bfloat16Element, Codec::kFp8E4m3>::Copy(0x38, 2.0F) == 0x4000);

TEST(ElementsTest, RawCopiesKeepEveryBit) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t stored = static_cast<uint16_t>(bits);
    EXPECT_EQ((Coded<Float16Element, Codec::kRaw>::Copy(stored, 3.0F)), stored);
    EXPECT_EQ((Coded<Bfloat16Element, Codec::kRaw>::Copy(stored, 3.0F)), stored);
  }
  const uint32_t signalling = 0x7F800001;
  EXPECT_EQ((Coded<Float32Element, Codec::kRaw>::Copy(signalling, 3.0F)), signalling);
}

TEST(ElementsTest, CodesAreDecodedAndRoundedOnce) {
  for (uint32_t byte = 0; byte < 0x100; ++byte) {
    const uint8_t stored = static_cast<uint8_t>(byte);
    EXPECT_EQ((Coded<Float16Element, Codec::kInt8>::Copy(stored, 0.1F)),
              Float16FromFloat(FloatFromInt8(stored) * 0.1F));
    EXPECT_EQ((Coded<Bfloat16Element, Codec::kFp8E4m3>::Copy(stored, 0.1F)),
              Bfloat16FromFloat(FloatFromFp8E4m3(stored) * 0.1F));
  }
}

}  // namespace
}  // namespace semshare
