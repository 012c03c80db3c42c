#include "kernels/cuda/vec.h"

#include <gtest/gtest.h>

#include <cstring>

namespace semshare {
namespace {

template <int kBytes>
void CheckElements() {
  uint8_t bytes[16];
  for (int i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>(17 * i + 3);
  Vec16 vec;
  std::memcpy(&vec, bytes, sizeof(vec));
  Vec16 packed = {};
  for (int i = 0; i < 16 / kBytes; ++i) {
    uint32_t expected = 0;
    std::memcpy(&expected, bytes + i * kBytes, kBytes);
    EXPECT_EQ(Unpack<kBytes>(vec.words, i), expected);
    Pack<kBytes>(expected, packed.words, i);
  }
  EXPECT_EQ(std::memcmp(&packed, bytes, sizeof(packed)), 0);
}

TEST(VecTest, ElementsLieAsInMemory) {
  CheckElements<1>();
  CheckElements<2>();
  CheckElements<4>();
}

TEST(VecTest, LoadsAndStoresWholeUnits) {
  alignas(16) std::byte memory[48] = {};
  AlignedAccess::Store(Vec16{{1, 2, 3, 4}}, memory + 16);
  const Vec16 vec = AlignedAccess::Load<Vec16>(memory + 16);
  EXPECT_EQ(vec.words[3], 4U);
  EXPECT_EQ(std::to_integer<int>(memory[15]), 0);
  EXPECT_EQ(std::to_integer<int>(memory[32]), 0);
}

}  // namespace
}  // namespace semshare
