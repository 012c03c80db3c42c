#include "server/match/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "server/match/paper_match.h"
#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Alignment Of(std::vector<Segment> segments) {
  Alignment alignment;
  alignment.segments = std::move(segments);
  for (const Segment& segment : alignment.segments) {
    alignment.matched_tokens += segment.tokens;
    while (static_cast<int>(alignment.references.size()) <= segment.reference) {
      alignment.references.push_back(static_cast<int>(alignment.references.size()));
    }
  }
  return alignment;
}

// A header of 100 new tokens before a document of 900 that lay at 20.
Alignment Shifted() { return Of({{100, 0, 20, 899, SegmentKind::kExact}}); }

// An exact prefix of 200 tokens, then an edit every 50 tokens.
Alignment Edited() {
  std::vector<Segment> segments = {{0, 0, 0, 200, SegmentKind::kExact}};
  for (int64_t t = 201; t < 999; t += 50) {
    segments.push_back({t, 0, t, std::min<int64_t>(49, 999 - t), SegmentKind::kExact});
  }
  return Of(segments);
}

Alignment Reordered() {
  return Of({{0, 0, 500, 300, SegmentKind::kExact}, {300, 0, 100, 699, SegmentKind::kExact}});
}

PlanRequest Request(Preset preset) {
  PlanRequest request;
  request.target_tokens = 1000;
  request.layers = 30;
  request.preset = preset;
  request.seed = 7;
  return request;
}

std::set<int64_t> Tokens(const std::vector<TokenRange>& ranges) {
  std::set<int64_t> tokens;
  int64_t end = -1;
  for (const TokenRange& range : ranges) {
    EXPECT_GT(range.begin, end);  // ascending, disjoint, merged
    EXPECT_LT(range.begin, range.end);
    end = range.end;
    for (int64_t t = range.begin; t < range.end; ++t) tokens.insert(t);
  }
  return tokens;
}

std::set<int64_t> Computed(const Plan& plan) {
  std::set<int64_t> tokens = Tokens(plan.mandatory);
  for (const int64_t t : Tokens(plan.selected)) EXPECT_TRUE(tokens.insert(t).second) << t;
  return tokens;
}

bool Contains(const std::set<int64_t>& outer, const std::set<int64_t>& inner) {
  return std::includes(outer.begin(), outer.end(), inner.begin(), inner.end());
}

std::vector<float> Importance(uint64_t seed) {
  Prompts prompts(seed);
  std::vector<float> importance(1000);
  for (float& value : importance) value = static_cast<float>(prompts.Below(1000)) / 100.0f;
  return importance;
}

TEST(SummarizeTest, CountsRunsSeamsAndMovedTokens) {
  const AlignmentStats shifted = Summarize(Shifted(), 1000);
  EXPECT_EQ(shifted.runs, 1);
  EXPECT_EQ(shifted.seams, 1);
  EXPECT_EQ(shifted.moved_tokens, 899);
  EXPECT_EQ(shifted.unmatched_tokens, 101);
  EXPECT_FALSE(shifted.reordered);
  EXPECT_FALSE(shifted.prefix_only);

  const AlignmentStats edited = Summarize(Edited(), 1000);
  EXPECT_EQ(edited.runs, 17);
  EXPECT_EQ(edited.seams, 16);  // the prefix has none
  EXPECT_EQ(edited.moved_tokens, 0);
  EXPECT_FALSE(edited.reordered);
  EXPECT_TRUE(Summarize(Reordered(), 1000).reordered);
}

TEST(SummarizeTest, SegmentsThatContinueEachOtherAreOneRun) {
  const Alignment alignment = Of({{10, 0, 30, 20, SegmentKind::kExact},
                                  {30, 0, 50, 2, SegmentKind::kToken},
                                  {32, 0, 60, 20, SegmentKind::kExact}});
  EXPECT_EQ(Summarize(alignment, 60).runs, 2);
}

TEST(SummarizeTest, AFuzzyRowBreaksARun) {
  const Alignment alignment = Of({{0, 0, 0, 20, SegmentKind::kExact},
                                  {20, 0, 20, 1, SegmentKind::kFuzzy},
                                  {21, 0, 21, 20, SegmentKind::kExact}});
  const AlignmentStats stats = Summarize(alignment, 60);
  EXPECT_EQ(stats.seams, 2);
  EXPECT_FALSE(stats.prefix_only);
  EXPECT_EQ(SeamPrior(alignment, 60)[19], 0.0f);
  EXPECT_EQ(SeamPrior(alignment, 60)[21], 1.0f);
}

TEST(SummarizeTest, PrefixOnly) {
  EXPECT_TRUE(Summarize(Of({{0, 0, 0, 400, SegmentKind::kExact}}), 1000).prefix_only);
  EXPECT_FALSE(Summarize(Of({{0, 0, 1, 400, SegmentKind::kExact}}), 1000).prefix_only);
  EXPECT_FALSE(Summarize(Alignment(), 1000).prefix_only);
}

TEST(SummarizeTest, AStrayRunOrAnotherSourceOfThePrefixIsNoReordering) {
  // 10 of 900 tokens come from elsewhere.
  EXPECT_FALSE(Summarize(Of({{10, 0, 20, 400, SegmentKind::kExact},
                             {410, 0, 5, 10, SegmentKind::kExact},
                             {420, 0, 430, 490, SegmentKind::kExact}}),
                         1000)
                   .reordered);
  EXPECT_FALSE(
      Summarize(Of({{0, 0, 0, 400, SegmentKind::kExact}, {400, 1, 100, 500, SegmentKind::kExact}}),
                1000)
          .reordered);
  EXPECT_TRUE(
      Summarize(Of({{10, 0, 0, 400, SegmentKind::kExact}, {410, 1, 100, 500, SegmentKind::kExact}}),
                1000)
          .reordered);
}

// An edited source file is full of short lines that are found anywhere.
TEST(SummarizeTest, ShortRunsFromElsewhereAreNoReordering) {
  const auto mixed = [](int64_t tokens) {
    std::vector<Segment> segments;
    for (int64_t t = 0; t + 100 <= 1000; t += 100) {
      segments.push_back({t, 0, t + 7, 80, SegmentKind::kExact});
      segments.push_back({t + 80, 0, 990 - t, tokens, SegmentKind::kExact});
    }
    return Summarize(Of(segments), 1000);
  };
  EXPECT_FALSE(mixed(15).reordered);
  EXPECT_TRUE(mixed(16).reordered);  // passages
}

TEST(KindOfTest, NamesWhatHappened) {
  const auto kind = [](const Alignment& alignment, MatchMode mode = MatchMode::kToken) {
    return KindOf(alignment, Summarize(alignment, 1000), mode);
  };
  EXPECT_EQ(kind(Alignment()), ResultKind::kMiss);
  EXPECT_EQ(kind(Of({{0, 0, 0, 400, SegmentKind::kExact}})), ResultKind::kExactPrefix);
  EXPECT_EQ(kind(Shifted()), ResultKind::kShifted);
  EXPECT_EQ(kind(Edited()), ResultKind::kEdited);
  EXPECT_EQ(kind(Reordered()), ResultKind::kEdited);
  EXPECT_EQ(kind(Of({{0, 0, 0, 4, SegmentKind::kExact}, {4, 0, 4, 4, SegmentKind::kFuzzy}})),
            ResultKind::kFuzzy);
  EXPECT_EQ(kind(Shifted(), MatchMode::kSemShareKv), ResultKind::kSemShareKv);
}

TEST(SeamPriorTest, FallsWithTheDistanceFromASeam) {
  const std::vector<float> prior = SeamPrior(Shifted(), 1000);
  EXPECT_EQ(prior[99], 0.25f);
  EXPECT_EQ(prior[100], 1.0f);
  EXPECT_EQ(prior[115], 1.0f);
  EXPECT_EQ(prior[116], 0.5f);
  EXPECT_EQ(prior[163], 0.5f);
  EXPECT_EQ(prior[164], 0.25f);
  EXPECT_EQ(prior[999], 0.25f);
}

TEST(SeamPriorTest, IsZeroWhereNothingBeforeHasChanged) {
  const std::vector<float> prior = SeamPrior(Edited(), 1000);
  EXPECT_EQ(std::count(prior.begin(), prior.end(), 0.0f), 200);
  EXPECT_EQ(prior[199], 0.0f);
  EXPECT_EQ(prior[201], 1.0f);
  // A head is never lowered by the neighbourhood of a later seam, nor the other way round.
  EXPECT_EQ(prior[217], 0.5f);
  EXPECT_EQ(prior[251], 1.0f);
}

TEST(PlanTest, FastComputesUnmatchedTokensAndTheQuestion) {
  const Plan plan = MakePlan(Shifted(), Request(Preset::kFast));
  EXPECT_EQ(plan.preset, Preset::kFast);
  EXPECT_THAT(plan.mandatory, ElementsAre(TokenRange{0, 100}, TokenRange{980, 1000}));
  EXPECT_THAT(plan.selected, IsEmpty());
  EXPECT_EQ(plan.question_tokens, 20);
  EXPECT_EQ(plan.asked_tokens, 0);
}

TEST(PlanTest, TheQuestionIsClamped) {
  PlanRequest request = Request(Preset::kFast);
  request.question_tokens = 0;
  EXPECT_THAT(MakePlan(Shifted(), request).mandatory,
              ElementsAre(TokenRange{0, 100}, TokenRange{999, 1000}));
  request.question_tokens = 5000;
  const Plan plan = MakePlan(Shifted(), request);
  EXPECT_THAT(plan.mandatory, ElementsAre(TokenRange{0, 1000}));
  EXPECT_THAT(plan.sentinels, IsEmpty());
  EXPECT_EQ(plan.recomputed_share, 1.0);
}

TEST(PlanTest, HeadsAddsSixteenTokensAfterEachSeam) {
  EXPECT_THAT(MakePlan(Shifted(), Request(Preset::kHeads)).mandatory,
              ElementsAre(TokenRange{0, 116}, TokenRange{980, 1000}));
  const std::set<int64_t> edited = Computed(MakePlan(Edited(), Request(Preset::kHeads)));
  EXPECT_FALSE(edited.contains(199));
  EXPECT_TRUE(edited.contains(216));
  EXPECT_FALSE(edited.contains(217));
}

TEST(PlanTest, BalancedAndFaithfulSpendTheirBudgetByImportanceAndPrior) {
  const std::vector<float> importance = Importance(1);
  const std::vector<float> prior = SeamPrior(Edited(), 1000);
  for (const auto& [preset, budget] :
       {std::pair{Preset::kBalanced, 100u}, {Preset::kFaithful, 200u}}) {
    PlanRequest request = Request(preset);
    request.importance = importance;
    const Plan plan = MakePlan(Edited(), request);
    const std::set<int64_t> selected = Tokens(plan.selected);
    const std::set<int64_t> mandatory = Tokens(plan.mandatory);
    EXPECT_EQ(selected.size(), budget);
    EXPECT_EQ(plan.asked_tokens, 0);
    float lowest = 1e9f;
    for (const int64_t t : selected) lowest = std::min(lowest, importance[t] * prior[t]);
    for (int64_t t = 0; t < 1000; ++t) {
      if (selected.contains(t) || mandatory.contains(t)) continue;
      EXPECT_LE(importance[t] * prior[t], lowest) << t;
    }
    for (const int64_t t : selected) EXPECT_GE(t, 200);  // exact rows are never bought
  }
}

TEST(PlanTest, PresetsAreNested) {
  const std::vector<float> importance = Importance(2);
  for (const Alignment& alignment : {Shifted(), Edited()}) {
    const auto computed = [&](Preset preset) {
      PlanRequest request = Request(preset);
      request.importance = importance;
      return Computed(MakePlan(alignment, request));
    };
    const std::set<int64_t> fast = computed(Preset::kFast);
    EXPECT_TRUE(Contains(computed(Preset::kHeads), fast));
    EXPECT_TRUE(Contains(computed(Preset::kBalanced), fast));
    EXPECT_TRUE(Contains(computed(Preset::kFaithful), computed(Preset::kBalanced)));
  }
}

TEST(PlanTest, AsksWithoutStoredImportanceAndInAnotherOrder) {
  const std::vector<float> importance = Importance(3);
  PlanRequest request = Request(Preset::kBalanced);
  const Plan plan = MakePlan(Edited(), request);
  EXPECT_THAT(plan.selected, IsEmpty());
  EXPECT_EQ(plan.asked_tokens, 100);
  const std::vector<float> prior = SeamPrior(Edited(), 1000);
  const std::set<int64_t> mandatory = Tokens(plan.mandatory);
  std::vector<float> asked(1000, 0.0f);
  int64_t end = 0;
  for (const PriorRange& range : plan.asked_prior) {
    EXPECT_GE(range.range.begin, end);
    end = range.range.end;
    std::fill(asked.begin() + range.range.begin, asked.begin() + range.range.end, range.weight);
  }
  for (int64_t t = 0; t < 1000; ++t) {
    EXPECT_EQ(asked[t], mandatory.contains(t) ? 0.0f : prior[t]) << t;
  }

  request.importance = importance;
  EXPECT_EQ(MakePlan(Edited(), request).asked_tokens, 0);
  EXPECT_EQ(MakePlan(Reordered(), request).asked_tokens, 100);
  request.importance = absl::MakeConstSpan(importance).first(10);  // not one for each token
  EXPECT_EQ(MakePlan(Edited(), request).asked_tokens, 100);
}

TEST(PlanTest, NeverAsksForMoreThanThereIs) {
  const Alignment alignment = Of({{10, 0, 0, 40, SegmentKind::kExact}});
  PlanRequest request = Request(Preset::kFaithful);
  request.target_tokens = 50;
  request.question_tokens = 38;
  EXPECT_EQ(MakePlan(alignment, request).asked_tokens, 2);
}

TEST(PlanTest, TheShareCountsTokenLayerPairs) {
  EXPECT_DOUBLE_EQ(MakePlan(Shifted(), Request(Preset::kFast)).recomputed_share,
                   (120.0 * 30 + 32 * 3) / 30000);
  EXPECT_DOUBLE_EQ(MakePlan(Shifted(), Request(Preset::kHeads)).recomputed_share,
                   (136.0 * 30 + 32 * 3) / 30000);
  // Asking runs the 20 tokens of the question once more.
  EXPECT_DOUBLE_EQ(MakePlan(Shifted(), Request(Preset::kBalanced)).recomputed_share,
                   (240.0 * 30 + 32 * 3) / 30000);
  EXPECT_DOUBLE_EQ(MakePlan(Alignment(), Request(Preset::kFast)).recomputed_share, 1.0);
}

TEST(PlanTest, ShallowModelsHaveNoLayerForSentinels) {
  for (const int layers : {1, 2, 3}) {
    PlanRequest request = Request(Preset::kFast);
    request.layers = layers;
    const Plan plan = MakePlan(Shifted(), request);
    EXPECT_EQ(plan.sentinel_layer, layers - 1);
    EXPECT_EQ(plan.sentinels.empty(), layers == 1);
    EXPECT_LE(plan.recomputed_share, 1.0);
  }
}

TEST(PlanTest, SentinelsAreDistinctSeededAndSpreadOverKeptRows) {
  PlanRequest request = Request(Preset::kHeads);
  const Plan plan = MakePlan(Edited(), request);
  ASSERT_EQ(plan.sentinels.size(), 32u);
  EXPECT_EQ(plan.sentinel_layer, 2);
  const std::set<int64_t> computed = Computed(plan);
  const std::vector<int64_t> places = PlaceOfEach(Edited(), 1000);
  int64_t last = 199;  // exact rows tell nothing
  for (const int64_t t : plan.sentinels) {
    EXPECT_GT(t, last);
    last = t;
    EXPECT_FALSE(computed.contains(t));
    EXPECT_GE(places[t], 0);
  }
  EXPECT_LT(plan.sentinels.front(), 300);
  EXPECT_GT(plan.sentinels.back(), 900);
  EXPECT_EQ(MakePlan(Edited(), request).sentinels, plan.sentinels);
  request.seed = 8;
  EXPECT_NE(MakePlan(Edited(), request).sentinels, plan.sentinels);
}

TEST(PlanTest, FewKeptRowsAreAllSentinels) {
  const Alignment alignment = Of({{10, 0, 0, 5, SegmentKind::kExact}});
  PlanRequest request = Request(Preset::kFast);
  request.target_tokens = 100;
  EXPECT_THAT(MakePlan(alignment, request).sentinels, ElementsAre(10, 11, 12, 13, 14));
}

TEST(PlanTest, ExactPrefixesAreComputedOnNoLayerAndNotGated) {
  const Alignment prefix = Of({{0, 0, 0, 990, SegmentKind::kExact}});
  for (const Preset preset : {Preset::kAuto, Preset::kFast, Preset::kHeads, Preset::kFaithful}) {
    const Plan plan = MakePlan(prefix, Request(preset));
    EXPECT_NE(plan.preset, Preset::kAuto);
    // Rows of the question that lie in the prefix are exact as well.
    EXPECT_THAT(plan.mandatory, ElementsAre(TokenRange{990, 1000}));
    EXPECT_THAT(plan.selected, IsEmpty());
    EXPECT_THAT(plan.sentinels, IsEmpty());
    EXPECT_EQ(plan.asked_tokens, 0);
    EXPECT_EQ(plan.sigma_limit, 0);
    EXPECT_DOUBLE_EQ(plan.recomputed_share, 0.01);
  }
  EXPECT_THAT(MakePlan(Of({{0, 0, 0, 999, SegmentKind::kExact}}), Request(Preset::kAuto)).mandatory,
              ElementsAre(TokenRange{999, 1000}));
}

TEST(PlanTest, SemShareKvFollowsThePaper) {
  PlanRequest request = Request(Preset::kAuto);
  request.mode = MatchMode::kSemShareKv;
  const Plan plan = MakePlan(Shifted(), request);
  EXPECT_EQ(plan.preset, Preset::kSemShareKv);
  EXPECT_EQ(plan.recompute_tokens, PaperSchedule(1000, 30, 120, PaperOptions()));
  EXPECT_THAT(plan.sentinels, IsEmpty());
  int64_t pairs = 0;
  for (const int64_t tokens : plan.recompute_tokens) pairs += tokens;
  EXPECT_DOUBLE_EQ(plan.recomputed_share, static_cast<double>(pairs) / 30000);
}

TEST(PlanTest, AutoFollowsTheAlignment) {
  const auto chosen = [](const Alignment& alignment, double kl_target) {
    PlanRequest request = Request(Preset::kAuto);
    request.kl_target = kl_target;
    return MakePlan(alignment, request).preset;
  };
  EXPECT_EQ(chosen(Shifted(), 0.05), Preset::kHeads);
  EXPECT_EQ(chosen(Shifted(), 0.01), Preset::kBalanced);  // a tenth of a short prompt is new
  EXPECT_EQ(chosen(Edited(), 0.01), Preset::kFast);
  EXPECT_EQ(chosen(Edited(), 0.0005), Preset::kBalanced);
  EXPECT_EQ(chosen(Edited(), 0.0001), Preset::kFaithful);
  EXPECT_EQ(chosen(Reordered(), 0.02), Preset::kBalanced);
  EXPECT_EQ(chosen(Reordered(), 0.001), Preset::kFaithful);
}

TEST(PlanTest, AnEmptyTargetHasAnEmptyPlan) {
  PlanRequest request = Request(Preset::kAuto);
  request.target_tokens = 0;
  EXPECT_THAT(MakePlan(Alignment(), request).mandatory, IsEmpty());
}

TEST(PredictCostTest, InterpolatesAndAddsTheTransfer) {
  CostModel model;
  EXPECT_EQ(PredictCost(model, 1000, 0.1, 1 << 20).prefill_seconds, 0);
  model.prefill = {{100, 0.5}, {1000, 2.0}, {3000, 8.0}};
  EXPECT_DOUBLE_EQ(PredictCost(model, 1000, 0.1, 0).prefill_seconds, 2.0);
  EXPECT_DOUBLE_EQ(PredictCost(model, 2000, 0.1, 0).prefill_seconds, 5.0);
  EXPECT_DOUBLE_EQ(PredictCost(model, 50, 0.1, 0).prefill_seconds, 0.25);
  EXPECT_DOUBLE_EQ(PredictCost(model, 6000, 0.1, 0).prefill_seconds, 16.0);
  EXPECT_DOUBLE_EQ(PredictCost(model, 2000, 0.1, 1000).reuse_seconds, 0.5);
  model.transfer_bytes_per_second = 1e3;
  EXPECT_DOUBLE_EQ(PredictCost(model, 2000, 0.1, 1000).reuse_seconds, 1.5);
}

}  // namespace
}  // namespace semshare
