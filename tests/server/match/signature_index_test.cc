#include "server/match/signature_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>
#include <thread>

#include "tests/server/match/backends.h"

namespace semshare {
namespace {

using testing::IsEmpty;

constexpr int kWords = 4;
using Code = std::vector<uint64_t>;

Code RandomCode(std::mt19937_64& random) {
  Code code(kWords);
  for (uint64_t& word : code) word = random();
  return code;
}

class SignatureIndexTest : public testing::TestWithParam<TestBackend> {
 protected:
  std::unique_ptr<Backend> backend_ = NewTestBackend(GetParam());
};

TEST_P(SignatureIndexTest, AgreesWithAFullScanOverManySlabs) {
  std::mt19937_64 random(1);
  SignatureIndex index(kWords, backend_.get());
  const std::vector<uint32_t> rows = {0,    1,    63,   64,   4094, 4095, 4096,  4097,
                                      8191, 8192, 9000, 9001, 9002, 9003, 16383, 16384};
  std::vector<std::pair<uint32_t, Code>> all;
  for (const uint32_t row : rows) {
    all.emplace_back(row, RandomCode(random));
    ASSERT_TRUE(index.Set(row, all.back().second).ok());
  }
  for (const uint32_t row : {63u, 4095u, 9001u, 16384u}) {
    index.Clear(row);
    std::erase_if(all, [&](const auto& entry) { return entry.first == row; });
  }
  std::vector<uint32_t> live;
  for (const auto& entry : all) live.push_back(entry.first);
  EXPECT_EQ(index.LiveRows(), live);
  std::vector<uint64_t> queries;
  for (int q = 0; q < 5; ++q) {
    const Code code = RandomCode(random);
    queries.insert(queries.end(), code.begin(), code.end());
  }
  const auto nearest = index.Nearest(queries, 7);
  ASSERT_TRUE(nearest.ok()) << nearest.status();
  ASSERT_EQ(nearest->size(), 5u);
  for (int q = 0; q < 5; ++q) {
    std::vector<std::pair<int32_t, uint32_t>> expected;
    for (const auto& [row, code] : all) {
      int32_t distance = 0;
      for (int w = 0; w < kWords; ++w) distance += std::popcount(code[w] ^ queries[q * kWords + w]);
      expected.emplace_back(distance, row);
    }
    std::sort(expected.begin(), expected.end());
    ASSERT_EQ((*nearest)[q].size(), 7u);
    for (int i = 0; i < 7; ++i) {
      EXPECT_EQ((*nearest)[q][i].distance, expected[i].first);
      EXPECT_EQ((*nearest)[q][i].row, expected[i].second);
    }
  }
}

TEST_P(SignatureIndexTest, EmptyAndBadCalls) {
  SignatureIndex index(kWords, backend_.get());
  const Code code(kWords, 1);
  const auto nearest = index.Nearest(code, 3);
  ASSERT_TRUE(nearest.ok());
  ASSERT_EQ(nearest->size(), 1u);
  EXPECT_THAT((*nearest)[0], IsEmpty());
  EXPECT_FALSE(index.Nearest(code, 0).ok());
  EXPECT_TRUE(index.Nearest(code, 64).ok());
  EXPECT_FALSE(index.Nearest(code, 65).ok());
  EXPECT_FALSE(index.Nearest(Code(3), 1).ok());
  EXPECT_FALSE(index.Set(1, Code(3)).ok());
  EXPECT_FALSE(index.Set(1, Code(5)).ok());
  index.Clear(99);
  EXPECT_THAT(index.LiveRows(), IsEmpty());
  EXPECT_EQ(index.bytes(), 0);
}

TEST_P(SignatureIndexTest, ARowIsUsedAgain) {
  std::mt19937_64 random(2);
  SignatureIndex index(kWords, backend_.get());
  const Code first = RandomCode(random);
  const Code second = RandomCode(random);
  ASSERT_TRUE(index.Set(5, first).ok());
  const int64_t bytes = index.bytes();
  index.Clear(5);
  EXPECT_THAT((*index.Nearest(first, 1))[0], IsEmpty());
  ASSERT_TRUE(index.Set(5, second).ok());
  EXPECT_EQ((*index.Nearest(second, 1))[0][0].distance, 0);
  EXPECT_GT((*index.Nearest(first, 1))[0][0].distance, 0);
  EXPECT_EQ(index.bytes(), bytes);
}

// A slab larger than the shortlist, and two more that appear while readers run.
TEST_P(SignatureIndexTest, SlabsGrowWhileReadersRun) {
  SignatureIndex index(kWords, backend_.get());
  const Code fixed(kWords, 0x5555555555555555u);
  ASSERT_TRUE(index.Set(7, fixed).ok());
  const auto write = [&](uint32_t first) {
    std::mt19937_64 random(first);
    for (uint32_t row = first; row < 9000; row += 2) {
      if (row == 7) continue;
      EXPECT_TRUE(index.Set(row, RandomCode(random)).ok());
      if (row % 3 == 0) index.Clear(row);
    }
  };
  const auto read = [&] {
    for (int i = 0; i < 50; ++i) {
      const auto nearest = index.Nearest(fixed, 2);
      ASSERT_TRUE(nearest.ok()) << nearest.status();
      ASSERT_FALSE((*nearest)[0].empty());
      EXPECT_EQ((*nearest)[0][0].row, 7u);
    }
  };
  std::vector<std::thread> threads;
  threads.emplace_back(write, 0);
  threads.emplace_back(write, 1);
  threads.emplace_back(read);
  threads.emplace_back(read);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(index.LiveRows().size(), 6000u);
}

TEST_P(SignatureIndexTest, NearCodesAreOnTheShortlist) {
  constexpr uint32_t kRows = 20000;  // one slab of 8,192 compares half in full
  std::mt19937_64 random(3);
  SignatureIndex index(kWords, backend_.get());
  std::vector<Code> codes;
  for (uint32_t row = 0; row < kRows; ++row) {
    codes.push_back(RandomCode(random));
    ASSERT_TRUE(index.Set(row, codes.back()).ok());
  }
  int found = 0;
  for (int i = 0; i < 200; ++i) {
    const auto wanted = static_cast<uint32_t>(random() % kRows);
    Code query = codes[wanted];
    for (int flip = 0; flip < 64; ++flip) {
      const uint64_t bit = random() % 256;
      query[bit / 64] ^= uint64_t{1} << (bit % 64);
    }
    const auto nearest = index.Nearest(query, 1);
    ASSERT_TRUE(nearest.ok());
    found += (*nearest)[0][0].row == wanted ? 1 : 0;
  }
  EXPECT_GE(found, 198);
}

INSTANTIATE_TEST_SUITE_P(All, SignatureIndexTest,
                         testing::Values(TestBackend::kCpu, TestBackend::kLate), BackendName);

TEST(SignatureIndexFaultTest, WhatCannotBeMovedIsNotThereAndCanBeTriedAgain) {
  const std::unique_ptr<LateBackend> backend = NewLateBackend({2, absl::InfiniteDuration()});
  std::mt19937_64 random(4);
  SignatureIndex index(kWords, backend.get());
  const Code wanted = RandomCode(random);
  backend->FailNext(LateOp::kAllocate, absl::ResourceExhaustedError("no memory"));
  EXPECT_EQ(index.Set(0, wanted).code(), absl::StatusCode::kResourceExhausted);
  backend->FailNext(LateOp::kCopy, absl::InternalError("lost"));
  EXPECT_EQ(index.Set(0, wanted).code(), absl::StatusCode::kInternal);
  EXPECT_THAT(index.LiveRows(), IsEmpty());
  ASSERT_TRUE(index.Set(0, wanted).ok());
  EXPECT_EQ((*index.Nearest(wanted, 1))[0][0].distance, 0);
  backend->FailNext(LateOp::kHammingTopK, absl::InternalError("lost"));
  EXPECT_EQ(index.Nearest(wanted, 1).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace semshare
