#include "server/match/window_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace semshare {
namespace {

using testing::IsEmpty;

using Codes = std::vector<uint64_t>;

Codes RandomCodes(std::mt19937_64& random, int count) {
  Codes codes(static_cast<size_t>(count) * kSignatureWords);
  for (uint64_t& word : codes) word = random();
  return codes;
}

TEST(WindowIndexTest, FindsWhatAgreesInOneWordButForFlips) {
  std::mt19937_64 random(1);
  WindowIndex index(64, 7);
  const Codes codes = RandomCodes(random, 3);
  index.Add(5, codes);
  Codes query = RandomCodes(random, 2);
  // The second query's word 2 is that of the last window, but for one of the bits that count.
  query[6] = codes[10] ^ 0b100;
  const std::vector<WindowIndex::Hit> hits = index.Find(query, 1000);
  ASSERT_EQ(hits.size(), 1u);
  EXPECT_EQ(hits[0].slot, 5u);
  EXPECT_EQ(hits[0].query, 1);
  EXPECT_EQ(hits[0].word, 2);
  EXPECT_TRUE(WindowAgrees(&codes[8], &query[4], 2));
  EXPECT_FALSE(WindowAgrees(&codes[8], &query[4], 1));
  query[6] ^= 0b10;  // two flips
  EXPECT_THAT(index.Find(query, 1000), IsEmpty());
  query[6] = codes[10] ^ (uint64_t{0xffff} << kWindowKeyBits);  // bits that do not count
  EXPECT_EQ(index.Find(query, 1000).size(), 1u);
}

TEST(WindowIndexTest, RemovesWhatWasAdded) {
  std::mt19937_64 random(2);
  WindowIndex index(64, 7);
  Codes codes = RandomCodes(random, 2);
  codes.insert(codes.end(), codes.begin(), codes.end());  // windows that are equal
  index.Add(1, codes);
  EXPECT_GT(index.bytes(), 0);
  EXPECT_EQ(index.Find(absl::MakeConstSpan(codes).first(4), 1000).size(), 4u);
  index.Remove(1, codes);
  EXPECT_THAT(index.Find(codes, 1000), IsEmpty());
  EXPECT_THAT(index.Find({}, 1000), IsEmpty());
}

TEST(WindowIndexTest, FindsNearCodesAsOftenAsItSays) {
  std::mt19937_64 random(3);
  WindowIndex index(64, 7);
  constexpr uint32_t kReferences = 3000;
  std::vector<Codes> all;
  for (uint32_t slot = 0; slot < kReferences; ++slot) {
    all.push_back(RandomCodes(random, 1));
    index.Add(slot, all.back());
  }
  const auto found = [&](int distance) {
    int found = 0;
    for (int i = 0; i < 200; ++i) {
      const auto wanted = static_cast<uint32_t>(random() % kReferences);
      Codes query = all[wanted];
      std::vector<int> bits(256);
      for (int b = 0; b < 256; ++b) bits[b] = b;
      std::shuffle(bits.begin(), bits.end(), random);
      for (int b = 0; b < distance; ++b) query[bits[b] / 64] ^= uint64_t{1} << (bits[b] % 64);
      const auto hits = index.Find(query, 1000);
      found +=
          std::any_of(hits.begin(), hits.end(), [&](const auto& h) { return h.slot == wanted; });
    }
    return found;
  };
  EXPECT_GE(found(20), 170);
  EXPECT_GE(found(30), 118);
  EXPECT_GE(found(40), 62);
}

TEST(WindowIndexTest, WhatManyShareIsBounded) {
  std::mt19937_64 random(4);
  WindowIndex index(8, 7);
  const Codes shared = RandomCodes(random, 1);
  for (uint32_t slot = 0; slot < 1000; ++slot) index.Add(slot, shared);
  EXPECT_EQ(index.Find(shared, 1000).size(), 32u);  // 8 for each word
  EXPECT_LE(index.Find(shared, 10).size(), 16u);
}

}  // namespace
}  // namespace semshare
