#include "server/match/paper_match.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "tests/server/match/backends.h"
#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(PaperSimilarityTest, IsClipped) {
  EXPECT_DOUBLE_EQ(PaperSimilarity(0, PaperOptions()), 1.0);
  EXPECT_DOUBLE_EQ(PaperSimilarity(6, PaperOptions()), 0.8);
  EXPECT_DOUBLE_EQ(PaperSimilarity(30, PaperOptions()), 0.0);
  EXPECT_DOUBLE_EQ(PaperSimilarity(200, PaperOptions()), 0.0);
}

TEST(PaperScheduleTest, FallsToTheMandatoryTokens) {
  const std::vector<int64_t> schedule = PaperSchedule(1000, 30, 20, PaperOptions());
  ASSERT_EQ(schedule.size(), 30u);
  EXPECT_EQ(schedule[0], 1000);
  EXPECT_EQ(schedule[1], 400) << "no more than deviate much";
  EXPECT_EQ(schedule[5], 382);
  for (size_t l = 1; l < schedule.size(); ++l) EXPECT_LE(schedule[l], schedule[l - 1]);
  EXPECT_EQ(schedule.back(), 20);
  // 16 % of the pairs over 30 layers is the share that the paper's speed-up needs.
  const double pairs =
      static_cast<double>(std::accumulate(schedule.begin(), schedule.end(), int64_t{0}));
  EXPECT_NEAR(pairs / 30000, 0.16, 0.01);
  EXPECT_THAT(PaperSchedule(10, 2, 50, PaperOptions()), ElementsAre(10, 10));
  EXPECT_THAT(PaperSchedule(10, 0, 5, PaperOptions()), IsEmpty());
  PaperOptions all;
  all.high_deviation_share = 1;
  all.alpha_recompute = 0.5;
  EXPECT_THAT(PaperSchedule(1000, 4, 20, all), ElementsAre(1000, 500, 250, 125));
}

TEST(PaperOptionsTest, NumbersThatMakeNoSenseAreNamed) {
  EXPECT_TRUE(CheckPaperOptions(PaperOptions()).ok());
  struct Wrong {
    double PaperOptions::*field;
    const char* name;
    bool zero_is_fine;
  };
  for (const Wrong& wrong :
       {Wrong{&PaperOptions::distance_scale, "distance_scale", false},
        Wrong{&PaperOptions::similarity_trigger, "similarity_trigger", true},
        Wrong{&PaperOptions::high_deviation_share, "high_deviation_share", false},
        Wrong{&PaperOptions::attention_recovery, "attention_recovery", false},
        Wrong{&PaperOptions::hot_weight, "hot_weight", false},
        Wrong{&PaperOptions::cold_weight, "cold_weight", true},
        Wrong{&PaperOptions::alpha_recompute, "alpha_recompute", false},
        Wrong{&PaperOptions::alpha_retain, "alpha_retain", false}}) {
    for (const double value : {-0.1, 2e6, std::nan("")}) {
      PaperOptions options;
      options.*wrong.field = value;
      const absl::Status status = CheckPaperOptions(options);
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
      EXPECT_THAT(status.message(), HasSubstr(wrong.name));
    }
    PaperOptions options;
    options.*wrong.field = 0;
    EXPECT_EQ(CheckPaperOptions(options).ok(), wrong.zero_is_fine) << wrong.name;
  }
}

class PaperAlignTest : public testing::TestWithParam<TestBackend> {
 protected:
  static constexpr int64_t kVocab = 500;
  static constexpr int32_t kWidth = 64;

  PaperAlignTest() {
    std::mt19937_64 random(1);
    std::vector<float> table(kVocab * kWidth);
    for (float& value : table) {
      value = static_cast<float>(static_cast<double>(random() >> 11) * 0x1p-52 - 1.0);
    }
    // Token 401 means nearly what 400 does.
    for (int j = 0; j < kWidth; ++j) table[401 * kWidth + j] = table[400 * kWidth + j] * 1.01f;
    space_ = *EmbeddingSpace::Create({kVocab, kWidth, 5}, table, DefaultTokenWeights(kVocab),
                                     backend_.get());
  }

  std::unique_ptr<Backend> backend_ = NewTestBackend(GetParam());
  std::unique_ptr<EmbeddingSpace> space_;
};

TEST_P(PaperAlignTest, EveryTokenButTheLastTakesItsNearest) {
  Prompts prompts(2, 300);
  const Ids source = prompts.Text(60);
  Ids target = source;
  target[30] = 401;
  Ids stored = source;
  stored[30] = 400;
  const auto alignment = PaperAlign({target, {}}, {stored, {}}, *space_);
  ASSERT_TRUE(alignment.ok()) << alignment.status();
  EXPECT_THAT(alignment->segments, ElementsAre(Segment{0, 0, 0, 30, SegmentKind::kExact},
                                               Segment{30, 0, 30, 1, SegmentKind::kFuzzy},
                                               Segment{31, 0, 31, 28, SegmentKind::kExact}));
  EXPECT_EQ(alignment->matched_tokens, 59);
  EXPECT_THAT(alignment->references, ElementsAre(0));
}

TEST_P(PaperAlignTest, TinyPromptsMatchNothing) {
  const auto align = [this](const Ids& target, const Ids& source) {
    return PaperAlign({target, {}}, {source, {}}, *space_);
  };
  EXPECT_THAT(align({1}, {1, 2})->segments, IsEmpty());
  EXPECT_THAT(align({1, 2}, {})->segments, IsEmpty());
  EXPECT_FALSE(align({9999, 1}, {1, 2}).ok());
}

TEST_P(PaperAlignTest, TaggedTokensOfEitherSideMatchNothing) {
  const Ids ids = {10, 20, 30, 40, 50, 60};
  const std::vector<ContentTag> image = {{1, 3, "image"}};
  const std::vector<ContentTag> other = {{2, 4, "other"}};
  // A token takes another place where its own is tagged, but never a tagged one.
  for (const auto& [target_tags, source_tags] :
       {std::pair{image, std::vector<ContentTag>{}}, {{}, image}, {image, image}, {image, other}}) {
    const auto alignment = PaperAlign({ids, target_tags}, {ids, source_tags}, *space_);
    ASSERT_TRUE(alignment.ok()) << alignment.status();
    ASSERT_FALSE(alignment->segments.empty());
    const auto tagged = [](const std::vector<ContentTag>& tags, int64_t t) {
      return !tags.empty() && t >= tags[0].begin && t < tags[0].end;
    };
    for (const Segment& segment : alignment->segments) {
      for (int64_t i = 0; i < segment.tokens; ++i) {
        EXPECT_FALSE(tagged(target_tags, segment.target_begin + i));
        EXPECT_FALSE(tagged(source_tags, segment.source_begin + i));
      }
    }
  }
  const std::vector<ContentTag> all = {{0, 6, "image"}};
  EXPECT_THAT(PaperAlign({ids, all}, {ids, {}}, *space_)->segments, IsEmpty());
  EXPECT_THAT(PaperAlign({ids, {}}, {ids, all}, *space_)->segments, IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(All, PaperAlignTest,
                         testing::Values(TestBackend::kCpu, TestBackend::kLate), BackendName);

}  // namespace
}  // namespace semshare
