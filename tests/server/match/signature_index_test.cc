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

TEST_P(SignatureIndexTest, AgreesWithAFullScanOverManySegments) {
  std::mt19937_64 random(1);
  SignatureIndex index(kWords, backend_.get(), 64);
  std::vector<std::pair<uint64_t, Code>> all;
  for (uint64_t owner = 0; owner < 500; ++owner) {
    all.emplace_back(owner, RandomCode(random));
    ASSERT_TRUE(index.Add(owner, all.back().second).ok());
  }
  for (uint64_t owner = 0; owner < 500; owner += 3) {
    index.Remove(owner);
    std::erase_if(all, [&](const auto& entry) { return entry.first == owner; });
  }
  EXPECT_EQ(index.codes(), static_cast<int64_t>(all.size()));
  std::vector<uint64_t> queries;
  for (int q = 0; q < 5; ++q) {
    const Code code = RandomCode(random);
    queries.insert(queries.end(), code.begin(), code.end());
  }
  const auto nearest = index.Nearest(queries, 7);
  ASSERT_TRUE(nearest.ok()) << nearest.status();
  ASSERT_EQ(nearest->size(), 5u);
  for (int q = 0; q < 5; ++q) {
    std::vector<std::pair<int32_t, uint64_t>> expected;
    for (const auto& [owner, code] : all) {
      int32_t distance = 0;
      for (int w = 0; w < kWords; ++w) distance += std::popcount(code[w] ^ queries[q * kWords + w]);
      expected.emplace_back(distance, owner);
    }
    std::stable_sort(expected.begin(), expected.end());
    ASSERT_EQ((*nearest)[q].size(), 7u);
    for (int i = 0; i < 7; ++i) {
      EXPECT_EQ((*nearest)[q][i].distance, expected[i].first);
      EXPECT_EQ((*nearest)[q][i].owner, expected[i].second);
    }
  }
}

TEST_P(SignatureIndexTest, EmptyAndBadCalls) {
  SignatureIndex index(kWords, backend_.get(), 64);
  const Code code(kWords, 1);
  const auto nearest = index.Nearest(code, 3);
  ASSERT_TRUE(nearest.ok());
  ASSERT_EQ(nearest->size(), 1u);
  EXPECT_THAT((*nearest)[0], IsEmpty());
  EXPECT_FALSE(index.Nearest(code, 0).ok());
  EXPECT_FALSE(index.Nearest(code, 65).ok());
  EXPECT_FALSE(index.Nearest(Code(3), 1).ok());
  EXPECT_FALSE(index.Add(1, Code(3)).ok());
  index.Remove(99);
}

TEST_P(SignatureIndexTest, FullSegmentsWithoutLiveCodesAreDropped) {
  std::mt19937_64 random(2);
  SignatureIndex index(kWords, backend_.get(), 64);
  for (uint64_t owner = 0; owner < 200; ++owner) {
    ASSERT_TRUE(index.Add(owner, RandomCode(random)).ok());
  }
  const int64_t before = index.bytes();
  for (uint64_t owner = 0; owner < 200; ++owner) index.Remove(owner);
  EXPECT_LT(index.bytes(), before / 2);
  EXPECT_EQ(index.codes(), 0);
}

TEST_P(SignatureIndexTest, AnOwnerMayHaveManyCodes) {
  std::mt19937_64 random(3);
  SignatureIndex index(kWords, backend_.get(), 64);
  Code many;
  for (int i = 0; i < 100; ++i) {
    const Code code = RandomCode(random);
    many.insert(many.end(), code.begin(), code.end());
  }
  ASSERT_TRUE(index.Add(5, many).ok());
  ASSERT_TRUE(index.Add(6, RandomCode(random)).ok());
  const Code last(many.end() - kWords, many.end());
  const auto nearest = index.Nearest(last, 1);
  ASSERT_TRUE(nearest.ok());
  EXPECT_EQ((*nearest)[0][0].owner, 5u);
  EXPECT_EQ((*nearest)[0][0].distance, 0);
  index.Remove(5);
  EXPECT_EQ(index.codes(), 1);
}

TEST_P(SignatureIndexTest, ReadersAndWritersTogether) {
  SignatureIndex index(kWords, backend_.get(), 64);
  const Code fixed(kWords, 0x5555555555555555u);
  ASSERT_TRUE(index.Add(1000000, fixed).ok());
  const auto write = [&](uint64_t first) {
    std::mt19937_64 random(first);
    for (uint64_t owner = first; owner < first + 200; ++owner) {
      EXPECT_TRUE(index.Add(owner, RandomCode(random)).ok());
      if (owner % 2 == 0) index.Remove(owner);
    }
  };
  const auto read = [&] {
    for (int i = 0; i < 50; ++i) {
      const auto nearest = index.Nearest(fixed, 2);
      ASSERT_TRUE(nearest.ok()) << nearest.status();
      ASSERT_FALSE((*nearest)[0].empty());
      EXPECT_EQ((*nearest)[0][0].owner, 1000000u);
    }
  };
  std::vector<std::thread> threads;
  threads.emplace_back(write, 0);
  threads.emplace_back(write, 1000);
  threads.emplace_back(read);
  threads.emplace_back(read);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(index.codes(), 201);
}

INSTANTIATE_TEST_SUITE_P(All, SignatureIndexTest,
                         testing::Values(TestBackend::kCpu, TestBackend::kLate), BackendName);

TEST(SignatureIndexFaultTest, ASegmentThatCannotBeMovedIsScannedAndTriedAgain) {
  const std::unique_ptr<LateBackend> backend = NewLateBackend({2, absl::InfiniteDuration()});
  std::mt19937_64 random(4);
  SignatureIndex index(kWords, backend.get(), 64);
  const Code wanted = RandomCode(random);
  ASSERT_TRUE(index.Add(0, wanted).ok());
  for (uint64_t owner = 1; owner < 64; ++owner) {
    ASSERT_TRUE(index.Add(owner, RandomCode(random)).ok());
  }
  const auto distance_of_wanted = [&] {
    const auto nearest = index.Nearest(wanted, 1);
    return nearest.ok() ? (*nearest)[0][0].distance : -1;
  };
  backend->FailNext(LateOp::kAllocate, absl::ResourceExhaustedError("no memory"));
  EXPECT_EQ(index.Add(100, wanted).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(index.codes(), 64);
  EXPECT_EQ(distance_of_wanted(), 0);
  backend->FailNext(LateOp::kCopy, absl::InternalError("lost"));
  EXPECT_EQ(index.Add(100, wanted).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(distance_of_wanted(), 0);
  EXPECT_TRUE(index.Add(100, wanted).ok());
  EXPECT_EQ(index.codes(), 65);
  EXPECT_EQ(distance_of_wanted(), 0);
  backend->FailNext(LateOp::kHammingTopK, absl::InternalError("lost"));
  EXPECT_EQ(index.Nearest(wanted, 1).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace semshare
