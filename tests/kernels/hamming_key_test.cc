#include "kernels/hamming_key.h"

#include <gtest/gtest.h>

namespace semshare {
namespace {

TEST(HammingKeyTest, NearerFirstThenLowerIndex) {
  EXPECT_LT(HammingKey(3, kMaxHammingIndex - 1), HammingKey(4, 0));
  EXPECT_LT(HammingKey(3, 7), HammingKey(3, 8));
  EXPECT_LT(HammingKey(4096, kMaxHammingIndex - 1), kNoHammingKey);
}

TEST(HammingKeyTest, KeepsBothParts) {
  for (const int32_t distance : {0, 1, 256, 4096}) {
    for (const int64_t index : {int64_t{0}, int64_t{1} << 33, kMaxHammingIndex - 1}) {
      const uint64_t key = HammingKey(distance, index);
      EXPECT_EQ(HammingKeyDistance(key), distance);
      EXPECT_EQ(HammingKeyIndex(key), index);
    }
  }
  EXPECT_EQ(HammingKeyIndex(kNoHammingKey), -1);
  EXPECT_EQ(HammingKeyDistance(kNoHammingKey), kNoDistance);
}

}  // namespace
}  // namespace semshare
