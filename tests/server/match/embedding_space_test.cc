#include "server/match/embedding_space.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <numbers>
#include <random>

#include "tests/server/match/backends.h"
#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

constexpr int64_t kVocab = 300;
constexpr int32_t kWidth = 24;

std::vector<float> RandomTable(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> table(kVocab * kWidth);
  for (float& value : table) {
    value = 0.3f + static_cast<float>(static_cast<double>(random() >> 11) * 0x1p-53);
  }
  return table;
}

// The generator as documented, by itself.
std::vector<double> Matrix(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> matrix(kWidth * kSignatureBits);
  for (size_t i = 0; i < matrix.size(); i += 2) {
    const double u = static_cast<double>((random() >> 11) + 1) * 0x1p-53;
    const double v = static_cast<double>(random() >> 11) * 0x1p-53;
    matrix[i] =
        static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
    matrix[i + 1] =
        static_cast<float>(std::sqrt(-2 * std::log(u)) * std::sin(2 * std::numbers::pi * v));
  }
  return matrix;
}

// Compares codes with exact sums; a bit whose sum is within rounding of zero may be either.
void ExpectSigns(const uint64_t* code, const std::vector<double>& sums, double tolerance) {
  for (int b = 0; b < kSignatureBits; ++b) {
    if (std::abs(sums[b]) < tolerance) continue;
    EXPECT_EQ((code[b / 64] >> (b % 64)) & 1, sums[b] > 0 ? 1u : 0u) << b << " " << sums[b];
  }
}

class EmbeddingSpaceTest : public testing::TestWithParam<TestBackend> {
 protected:
  std::unique_ptr<EmbeddingSpace> NewSpace() {
    auto space = EmbeddingSpace::Create({kVocab, kWidth, 11}, table_, weights_, backend_.get());
    EXPECT_TRUE(space.ok()) << space.status();
    return *std::move(space);
  }

  std::vector<double> SignatureSums(const Ids& ids, int64_t begin, int64_t end) {
    const std::vector<double> matrix = Matrix(11);
    std::vector<double> mean(kWidth, 0.0);
    for (int64_t row = 0; row < kVocab; ++row) {
      for (int j = 0; j < kWidth; ++j) mean[j] += table_[row * kWidth + j] / double{kVocab};
    }
    std::vector<double> sums(kSignatureBits, 0.0);
    for (int64_t t = begin; t < end; ++t) {
      for (int j = 0; j < kWidth; ++j) {
        const double value = weights_[ids[t]] * (table_[ids[t] * kWidth + j] - mean[j]);
        for (int b = 0; b < kSignatureBits; ++b) sums[b] += value * matrix[j * kSignatureBits + b];
      }
    }
    return sums;
  }

  std::unique_ptr<Backend> backend_ = NewTestBackend(GetParam());
  std::vector<float> table_ = RandomTable(1);
  std::vector<float> weights_ = DefaultTokenWeights(kVocab);
};

TEST_P(EmbeddingSpaceTest, SignaturesAreSignsOfWeightedSums) {
  const auto space = NewSpace();
  Prompts prompts(2, kVocab);
  for (const int64_t tokens : {1, 255, 256, 257, 700}) {
    const Ids ids = prompts.Text(tokens);
    const auto codes = space->Signatures(ids);
    ASSERT_TRUE(codes.ok()) << codes.status();
    const int64_t windows = (tokens + 255) / 256;
    ASSERT_EQ(static_cast<int64_t>(codes->size()), (1 + windows) * kSignatureWords);
    ExpectSigns(codes->data(), SignatureSums(ids, 0, tokens), 1e-3);
    for (int64_t w = 0; w < windows; ++w) {
      ExpectSigns(codes->data() + (1 + w) * kSignatureWords,
                  SignatureSums(ids, w * 256, std::min(tokens, (w + 1) * 256)), 1e-3);
    }
  }
}

TEST_P(EmbeddingSpaceTest, ASumOfZeroHasNoBitSet) {
  weights_.assign(kVocab, 0.0f);
  const auto codes = NewSpace()->Signatures(Ids{1, 2, 3});
  ASSERT_TRUE(codes.ok());
  for (const uint64_t word : *codes) EXPECT_EQ(word, 0u);
}

TEST_P(EmbeddingSpaceTest, TokenCodesAreSignsOfRotatedEmbeddings) {
  const auto space = NewSpace();
  const std::vector<double> matrix = Matrix(11);
  const Ids ids = {5, 5, 299, 0, 17};
  const std::vector<int64_t> positions = {0, 3, 100, 4000, 1};
  const auto codes = space->TokenCodes(ids, positions);
  ASSERT_TRUE(codes.ok()) << codes.status();
  ASSERT_EQ(codes->size(), ids.size() * kSignatureWords);
  for (size_t t = 0; t < ids.size(); ++t) {
    std::vector<double> sums(kSignatureBits, 0.0);
    for (int j = 0; j < kWidth; j += 2) {
      const double angle = static_cast<double>(positions[t]) * std::pow(1e4, -j / double{kWidth});
      const double x = table_[ids[t] * kWidth + j];
      const double y = table_[ids[t] * kWidth + j + 1];
      const double rotated[] = {x * std::cos(angle) - y * std::sin(angle),
                                x * std::sin(angle) + y * std::cos(angle)};
      for (int b = 0; b < kSignatureBits; ++b) {
        sums[b] += rotated[0] * matrix[j * kSignatureBits + b] +
                   rotated[1] * matrix[(j + 1) * kSignatureBits + b];
      }
    }
    ExpectSigns(codes->data() + t * kSignatureWords, sums, 1e-3);
  }
}

TEST_P(EmbeddingSpaceTest, NearestCodesLookInsideTheirWindows) {
  const auto space = NewSpace();
  Prompts prompts(3, kVocab);
  const Ids ids = prompts.Text(50);
  std::vector<int64_t> positions(50);
  for (int64_t i = 0; i < 50; ++i) positions[i] = i;
  const auto codes = space->TokenCodes(ids, positions);
  ASSERT_TRUE(codes.ok());
  const std::vector<uint64_t> query(codes->begin() + 20 * kSignatureWords,
                                    codes->begin() + 21 * kSignatureWords);
  std::vector<uint64_t> queries = query;
  queries.insert(queries.end(), query.begin(), query.end());
  queries.insert(queries.end(), query.begin(), query.end());
  const std::vector<int64_t> windows = {0, 50, 21, 50, 9, 9};
  const auto nearest = space->NearestCodes(queries, *codes, windows);
  ASSERT_TRUE(nearest.ok()) << nearest.status();
  EXPECT_EQ(nearest->indices[0], 20);
  EXPECT_EQ(nearest->distances[0], 0);
  EXPECT_GE(nearest->indices[1], 21);
  EXPECT_EQ(nearest->indices[2], -1);

  EXPECT_FALSE(space->NearestCodes(queries, *codes, {}).ok());
  EXPECT_FALSE(space->NearestCodes(absl::MakeConstSpan(queries).first(3), *codes, windows).ok());
  const auto none = space->NearestCodes(query, {}, std::vector<int64_t>{0, 0});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->indices[0], -1);
}

TEST_P(EmbeddingSpaceTest, RefusesWhatDoesNotFit) {
  const auto space = NewSpace();
  EXPECT_FALSE(space->Signatures({}).ok());
  EXPECT_FALSE(space->Signatures(Ids{static_cast<uint32_t>(kVocab)}).ok());
  EXPECT_FALSE(space->TokenCodes(Ids{1}, {}).ok());
  const auto refused = [&](const EmbeddingSpec& spec, std::vector<float> table,
                           std::vector<float> weights) {
    return EmbeddingSpace::Create(spec, table, weights, backend_.get()).status().code() ==
           absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused({0, kWidth, 1}, table_, weights_));
  EXPECT_TRUE(refused({kVocab, kWidth + 1, 1}, table_, weights_));
  EXPECT_TRUE(refused({kVocab, kWidth, 1}, table_, {}));
  std::vector<float> bad = table_;
  bad[7] = std::nanf("");
  EXPECT_TRUE(refused({kVocab, kWidth, 1}, bad, weights_));
  bad = weights_;
  bad[7] = -1;
  EXPECT_TRUE(refused({kVocab, kWidth, 1}, table_, bad));
}

INSTANTIATE_TEST_SUITE_P(All, EmbeddingSpaceTest,
                         testing::Values(TestBackend::kCpu, TestBackend::kLate), BackendName);

TEST(EmbeddingSpaceFaultTest, AFailedOperationIsReported) {
  const std::unique_ptr<LateBackend> backend = NewLateBackend({1, absl::InfiniteDuration()});
  const std::vector<float> table = RandomTable(1);
  const std::vector<float> weights = DefaultTokenWeights(kVocab);
  const auto create = [&] {
    return EmbeddingSpace::Create({kVocab, kWidth, 1}, table, weights, backend.get());
  };
  backend->FailNext(LateOp::kProject, absl::InternalError("lost"));
  EXPECT_EQ(create().status().code(), absl::StatusCode::kInternal);
  backend->RefuseNext(LateOp::kProject, absl::UnimplementedError("no kernel"));
  EXPECT_EQ(create().status().code(), absl::StatusCode::kUnimplemented);
  backend->FailNext(LateOp::kAllocate, absl::ResourceExhaustedError("full"));
  EXPECT_EQ(create().status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(backend->allocated_bytes(), 0);
  auto space = create();
  ASSERT_TRUE(space.ok());
  backend->FailNext(LateOp::kSignature, absl::InternalError("lost"));
  EXPECT_FALSE((*space)->Signatures(Ids{1, 2}).ok());
  EXPECT_TRUE((*space)->Signatures(Ids{1, 2}).ok());
}

TEST(TokenWeightsTest, CommonTokensWeighLess) {
  const std::vector<float> weights = DefaultTokenWeights(50000);
  ASSERT_EQ(weights.size(), 50000u);
  EXPECT_LT(weights[0], 0.02f);
  EXPECT_GT(weights[49999], 0.99f);
  for (size_t i = 1; i < weights.size(); ++i) ASSERT_GE(weights[i], weights[i - 1]);
  EXPECT_TRUE(DefaultTokenWeights(0).empty());
}

TEST(CodeSimilarityTest, IsTheCosineOfTheEstimatedAngle) {
  EXPECT_DOUBLE_EQ(CodeSimilarity(0, 256), 1.0);
  EXPECT_NEAR(CodeSimilarity(128, 256), 0.0, 1e-12);
  EXPECT_DOUBLE_EQ(CodeSimilarity(256, 256), -1.0);
}

}  // namespace
}  // namespace semshare
