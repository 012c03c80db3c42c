#include "server/match/planner.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "kernels/base/status_macros.h"
#include "server/match/paper_match.h"
#include "server/match/preset_policy.h"
#include "server/match/run_order.h"

namespace semshare {
namespace {

constexpr int64_t kHeadTokens = 16;  // recomputed after each seam by kHeads; prior 1
constexpr int64_t kNearTokens = 64;  // after each seam: prior 0.5
constexpr float kHeadPrior = 1.0f;
constexpr float kNearPrior = 0.5f;
constexpr float kFarPrior = 0.25f;
constexpr double kBalancedShare = 0.10;
constexpr double kFaithfulShare = 0.20;
constexpr int kSentinelLayer = 2;  // deviation shows from here on (method: layer 0 is lexical)
constexpr int64_t kSentinels = 32;

// A maximal contiguous stretch of source. Rows of other tokens (fuzzy) are stretches of their own:
// what follows them has lost its context as after an unmatched token.
struct SourceRun {
  int64_t target = 0;
  int64_t source = 0;
  int64_t tokens = 0;
  int reference = 0;
  bool fuzzy = false;

  // A run at the very start of both prompts is where it was computed: no seam, and exact.
  bool is_prefix() const { return target == 0 && source == 0 && !fuzzy; }
};

std::vector<SourceRun> FindRuns(const Alignment& alignment) {
  std::vector<SourceRun> runs;
  for (const Segment& segment : alignment.segments) {
    const bool fuzzy = segment.kind == SegmentKind::kFuzzy;
    SourceRun* last = runs.empty() ? nullptr : &runs.back();
    if (last != nullptr && last->reference == segment.reference && last->fuzzy == fuzzy &&
        last->target + last->tokens == segment.target_begin &&
        last->source + last->tokens == segment.source_begin) {
      last->tokens += segment.tokens;
      continue;
    }
    runs.push_back(
        {segment.target_begin, segment.source_begin, segment.tokens, segment.reference, fuzzy});
  }
  return runs;
}

// Tokens of the exact prefix: equal ids from position 0 on.
int64_t ExactPrefixTokens(const std::vector<SourceRun>& runs) {
  return !runs.empty() && runs.front().is_prefix() ? runs.front().tokens : 0;
}

// A set of tokens: 1 for each that is in it. Bytes, because they are scanned many times over.
using TokenSet = std::vector<char>;

std::vector<TokenRange> ToRanges(const TokenSet& set) {
  std::vector<TokenRange> ranges;
  auto begin = std::find(set.begin(), set.end(), 1);
  while (begin != set.end()) {
    const auto end = std::find(begin, set.end(), 0);
    ranges.push_back({begin - set.begin(), end - set.begin()});
    begin = std::find(end, set.end(), 1);
  }
  return ranges;
}

int64_t Count(const TokenSet& set) { return std::count(set.begin(), set.end(), 1); }

int64_t ShareOf(double share, int64_t tokens) {
  return static_cast<int64_t>(std::ceil(share * static_cast<double>(tokens)));
}

// Builds one plan: the sets by token, then the ranges.
class PlanBuilder {
 public:
  PlanBuilder(const Alignment& alignment, const PlanRequest& request)
      : alignment_(alignment),
        request_(request),
        tokens_(request.target_tokens),
        runs_(FindRuns(alignment)),
        exact_tokens_(ExactPrefixTokens(runs_)),
        matched_(tokens_),
        mandatory_(tokens_),
        selected_(tokens_) {}

  Plan Build();

 private:
  void MarkMandatory();
  void MarkAfterSeams(int64_t tokens, TokenSet& set) const;
  PresetChoice Choose(const AlignmentStats& stats) const;
  void AddRanked(double share, bool reordered);
  void AddStored(int64_t budget, const std::vector<float>& prior);
  void AddAsked(int64_t budget, const std::vector<float>& prior);
  void AddSentinels();
  double Share() const;

  const Alignment& alignment_;
  const PlanRequest& request_;
  const int64_t tokens_;
  const std::vector<SourceRun> runs_;
  const int64_t exact_tokens_;
  TokenSet matched_;
  TokenSet mandatory_;
  TokenSet selected_;
  Plan plan_;
};

Plan PlanBuilder::Build() {
  MarkMandatory();
  const AlignmentStats stats = Summarize(alignment_, tokens_);
  const bool paper = request_.mode == MatchMode::kSemShareKv;
  const bool exact = !paper && (stats.prefix_only || request_.mode == MatchMode::kExactPrefix);
  PresetChoice choice{request_.preset,
                      request_.preset == Preset::kFaithful ? kFaithfulShare : kBalancedShare};
  if (choice.preset == Preset::kAuto) {
    choice = exact ? PresetChoice{Preset::kFast, 0} : Choose(stats);
  }
  plan_.preset = choice.preset;
  if (!exact) {
    switch (plan_.preset) {
      case Preset::kAuto:
      case Preset::kFast:
        break;
      case Preset::kHeads:
        MarkAfterSeams(kHeadTokens, mandatory_);
        break;
      case Preset::kBalanced:
      case Preset::kFaithful:
        AddRanked(choice.ranked_share, stats.reordered);
        break;
      case Preset::kSemShareKv:
        plan_.recompute_tokens =
            PaperSchedule(tokens_, request_.layers, Count(mandatory_), request_.paper);
        plan_.paper = request_.paper;
        break;
    }
    if (plan_.preset != Preset::kSemShareKv) AddSentinels();
  }
  plan_.mandatory = ToRanges(mandatory_);
  plan_.selected = ToRanges(selected_);
  plan_.recomputed_share = Share();
  return plan_;
}

// Unmatched tokens and the question, but not its rows that are exact already. The last token gives
// the logits: it is computed whatever the cache holds.
void PlanBuilder::MarkMandatory() {
  for (const Segment& segment : alignment_.segments) {
    std::fill_n(matched_.begin() + segment.target_begin, segment.tokens, 1);
  }
  plan_.question_tokens = std::clamp<int64_t>(request_.question_tokens, 1, tokens_);
  const int64_t question_begin = std::max(exact_tokens_, tokens_ - plan_.question_tokens);
  for (int64_t t = 0; t < question_begin; ++t) mandatory_[t] = 1 - matched_[t];
  std::fill(mandatory_.begin() + question_begin, mandatory_.end(), 1);
  mandatory_[tokens_ - 1] = 1;
}

// The first `tokens` tokens of every run that begins at a seam.
void PlanBuilder::MarkAfterSeams(int64_t tokens, TokenSet& set) const {
  for (const SourceRun& run : runs_) {
    if (run.is_prefix()) continue;
    const int64_t end = std::min(run.target + std::min(tokens, run.tokens), tokens_);
    std::fill(set.begin() + run.target, set.begin() + end, 1);
  }
}

PresetChoice PlanBuilder::Choose(const AlignmentStats& stats) const {
  if (request_.mode == MatchMode::kSemShareKv) return {Preset::kSemShareKv, 0};
  TokenSet heads = mandatory_;
  MarkAfterSeams(kHeadTokens, heads);
  PolicyInput input;
  input.kl_target = request_.kl_target;
  input.tokens = tokens_;
  input.head_tokens = Count(heads) - Count(mandatory_);
  input.unmatched_tokens = stats.unmatched_tokens;
  input.reordered = stats.reordered;
  input.fuzzy =
      std::any_of(alignment_.segments.begin(), alignment_.segments.end(),
                  [](const Segment& segment) { return segment.kind == SegmentKind::kFuzzy; });
  return ChoosePreset(input);
}

// Stored importance says what mattered in the source's own order; where passages changed places
// the worker asks again.
void PlanBuilder::AddRanked(double share, bool reordered) {
  const std::vector<float> prior = SeamPrior(alignment_, tokens_);
  const int64_t budget = ShareOf(share, tokens_);
  const bool stored = static_cast<int64_t>(request_.importance.size()) == tokens_;
  if (stored && !reordered) {
    AddStored(budget, prior);
  } else {
    AddAsked(budget, prior);
  }
}

void PlanBuilder::AddStored(int64_t budget, const std::vector<float>& prior) {
  struct Scored {
    double score;
    float prior;
    int64_t token;
  };
  std::vector<Scored> scored;
  for (int64_t t = 0; t < tokens_; ++t) {
    if (mandatory_[t] || prior[t] <= 0) continue;
    scored.push_back({static_cast<double>(request_.importance[t]) * prior[t], prior[t], t});
  }
  const auto count = std::min(budget, static_cast<int64_t>(scored.size()));
  const auto better = [](const Scored& a, const Scored& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.prior != b.prior ? a.prior > b.prior : a.token < b.token;
  };
  std::nth_element(scored.begin(), scored.begin() + count, scored.end(), better);
  for (int64_t i = 0; i < count; ++i) selected_[scored[i].token] = 1;
}

// Mandatory tokens get no prior, so that the budget is spent on others.
void PlanBuilder::AddAsked(int64_t budget, const std::vector<float>& prior) {
  int64_t open = 0;
  for (int64_t t = 0; t < tokens_; ++t) {
    if (mandatory_[t] || prior[t] <= 0) continue;
    ++open;
    std::vector<PriorRange>& ranges = plan_.asked_prior;
    if (!ranges.empty() && ranges.back().range.end == t && ranges.back().weight == prior[t]) {
      ++ranges.back().range.end;
    } else {
      ranges.push_back({{t, t + 1}, prior[t]});
    }
  }
  plan_.asked_tokens = std::min(budget, open);
}

// One token at random from each of kSentinels equal strata of the rows that stay as they were
// loaded. Exact rows would tell nothing.
void PlanBuilder::AddSentinels() {
  const int layer = std::min(kSentinelLayer, request_.layers - 1);
  if (layer <= 0) return;
  std::vector<int64_t> kept;
  for (int64_t t = exact_tokens_; t < tokens_; ++t) {
    if (matched_[t] && !mandatory_[t] && !selected_[t]) kept.push_back(t);
  }
  const auto count = static_cast<int64_t>(kept.size());
  const int64_t sentinels = std::min(kSentinels, count);
  std::mt19937_64 random(request_.seed);
  for (int64_t i = 0; i < sentinels; ++i) {
    const int64_t begin = i * count / sentinels;
    const int64_t end = (i + 1) * count / sentinels;
    const auto offset = static_cast<int64_t>(random() % static_cast<uint64_t>(end - begin));
    plan_.sentinels.push_back(kept[begin + offset]);
  }
  if (plan_.sentinels.empty()) return;
  plan_.sentinel_layer = layer;
  plan_.sigma_limit = request_.sigma_limit;
}

// Computed (token, layer) pairs over all pairs. Rows of layer l exist once l - 1 is computed, so a
// token compared at layer l counts l + 1 layers.
double PlanBuilder::Share() const {
  const int64_t layers = request_.layers;
  if (tokens_ == 0 || layers <= 0) return 0;
  int64_t pairs = 0;
  if (!plan_.recompute_tokens.empty()) {
    for (const int64_t tokens : plan_.recompute_tokens) pairs += tokens;
  } else {
    pairs += (Count(mandatory_) + Count(selected_) + plan_.asked_tokens) * layers;
    // Asking runs the question once more.
    if (plan_.asked_tokens > 0) pairs += plan_.question_tokens * layers;
    pairs += static_cast<int64_t>(plan_.sentinels.size()) *
             std::min<int64_t>(layers, plan_.sentinel_layer + 1);
  }
  return static_cast<double>(pairs) / (static_cast<double>(tokens_) * static_cast<double>(layers));
}

double PrefillSeconds(const std::vector<CostModel::Point>& points, int64_t tokens) {
  if (points.empty()) return 0;
  const auto after = std::find_if(points.begin(), points.end(),
                                  [&](const auto& point) { return point.tokens >= tokens; });
  const auto at = static_cast<double>(tokens);
  if (after == points.end() || after == points.begin()) {
    // Outside the measured range: in proportion to the nearest point.
    const CostModel::Point& nearest = after == points.end() ? points.back() : points.front();
    if (nearest.tokens <= 0) return nearest.seconds;
    return nearest.seconds * at / static_cast<double>(nearest.tokens);
  }
  const CostModel::Point& before = *(after - 1);
  const double part = (at - static_cast<double>(before.tokens)) /
                      static_cast<double>(after->tokens - before.tokens);
  return before.seconds + part * (after->seconds - before.seconds);
}

}  // namespace

AlignmentStats Summarize(const Alignment& alignment, int64_t target_tokens) {
  const std::vector<SourceRun> runs = FindRuns(alignment);
  AlignmentStats stats;
  stats.runs = static_cast<int64_t>(runs.size());
  int64_t matched = 0;
  for (const SourceRun& run : runs) {
    if (!run.is_prefix()) ++stats.seams;
    if (run.source != run.target) stats.moved_tokens += run.tokens;
    matched += run.tokens;
  }
  stats.unmatched_tokens = target_tokens - matched;
  std::vector<Run> passages;
  for (const SourceRun& run : runs) {
    if (!run.is_prefix()) passages.push_back({run.target, run.reference, run.source, run.tokens});
  }
  stats.reordered = IsReordered(std::move(passages));
  stats.prefix_only = matched > 0 && ExactPrefixTokens(runs) == matched;
  return stats;
}

ResultKind KindOf(const Alignment& alignment, const AlignmentStats& stats, MatchMode mode) {
  if (alignment.segments.empty()) return ResultKind::kMiss;
  if (mode == MatchMode::kSemShareKv) return ResultKind::kSemShareKv;
  if (stats.prefix_only) return ResultKind::kExactPrefix;
  bool exact = true;
  for (const Segment& segment : alignment.segments) {
    if (segment.kind == SegmentKind::kFuzzy) return ResultKind::kFuzzy;
    exact = exact && segment.kind == SegmentKind::kExact;
  }
  // One passage at another place, with or without an exact prefix.
  return exact && stats.seams == 1 && stats.moved_tokens > 0 ? ResultKind::kShifted
                                                             : ResultKind::kEdited;
}

std::vector<float> SeamPrior(const Alignment& alignment, int64_t target_tokens) {
  std::vector<float> prior(target_tokens, kFarPrior);
  const std::vector<SourceRun> runs = FindRuns(alignment);
  const int64_t exact_tokens = std::min(ExactPrefixTokens(runs), target_tokens);
  std::fill(prior.begin(), prior.begin() + exact_tokens, 0.0f);
  const auto raise = [&](int64_t tokens, float value) {
    for (const SourceRun& run : runs) {
      if (run.is_prefix()) continue;
      const int64_t end = std::min(run.target + tokens, target_tokens);
      for (int64_t t = run.target; t < end; ++t) prior[t] = value;
    }
  };
  raise(kNearTokens, kNearPrior);
  raise(kHeadTokens, kHeadPrior);
  return prior;
}

Plan MakePlan(const Alignment& alignment, const PlanRequest& request) {
  if (request.target_tokens <= 0) return {};
  for (const Segment& segment : alignment.segments) {
    SEMSHARE_CHECK(segment.target_begin >= 0 && segment.tokens > 0 &&
                   segment.target_begin + segment.tokens <= request.target_tokens);
  }
  return PlanBuilder(alignment, request).Build();
}

CostPrediction PredictCost(const CostModel& model, int64_t target_tokens, double recomputed_share,
                           int64_t transfer_bytes) {
  CostPrediction cost;
  cost.prefill_seconds = PrefillSeconds(model.prefill, target_tokens);
  cost.reuse_seconds = cost.prefill_seconds * recomputed_share;
  if (model.transfer_bytes_per_second > 0) {
    cost.reuse_seconds += static_cast<double>(transfer_bytes) / model.transfer_bytes_per_second;
  }
  return cost;
}

}  // namespace semshare
