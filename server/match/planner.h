// MakePlan: what a worker recomputes, given an alignment (method: plan, presets, importance x seam
// prior, sentinels).
//
// A seam is a target position where the source stops being contiguous: the first token of a segment
// whose source does not continue the previous token's, and the first token after an unmatched one.
// Nothing before the first difference from the source's own prefix has changed: its prior is 0.
// Thread-safe: pure functions.
#ifndef SEMSHARE_SERVER_MATCH_PLANNER_H_
#define SEMSHARE_SERVER_MATCH_PLANNER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/match/types.h"

namespace semshare {

struct PlanRequest {
  int64_t target_tokens = 0;
  int layers = 0;
  MatchMode mode = MatchMode::kToken;
  Preset preset = Preset::kAuto;
  double kl_target = 0.01;  // nats, first token
  int64_t question_tokens = 20;
  // Mean sigma of the sentinels above which a worker falls back; 0: no gate. On SmolLM2-135M sound
  // reuse stays at .006 to .06; rows that have nothing to do with their place are at .45 and above.
  // A coarse gate against wrong rows, not yet a predictor of KL.
  double sigma_limit = 0.3;
  // Importance of each target token, carried over from the sources by the alignment (0 where
  // unmatched), or empty: not stored.
  absl::Span<const float> importance;
  uint64_t seed = 0;   // of the sentinels
  PaperOptions paper;  // kSemShareKv
};

// What the planner looks at; also for logs and tests.
struct AlignmentStats {
  int64_t runs = 0;  // maximal contiguous stretches of source
  int64_t seams = 0;
  int64_t moved_tokens = 0;  // matched with source position != target position
  int64_t unmatched_tokens = 0;
  // Passages after the exact prefix have changed places (run_order.h).
  bool reordered = false;
  bool prefix_only = false;  // one run from source 0 to target 0, the rest of the prompt unmatched
};

AlignmentStats Summarize(const Alignment& alignment, int64_t target_tokens);

ResultKind KindOf(const Alignment& alignment, const AlignmentStats& stats, MatchMode mode);

// The seam prior of every target token: 1 within 16 tokens after a seam, 0.5 within 64, 0.25
// elsewhere, 0 where nothing before has changed.
std::vector<float> SeamPrior(const Alignment& alignment, int64_t target_tokens);

// REQUIRES: segments inside the target. kAuto chooses a preset; every other preset is used as
// named. kExactPrefix alignments get M alone, no sentinels and no gate: they are exact.
Plan MakePlan(const Alignment& alignment, const PlanRequest& request);

// Cost gate: predicted seconds of a full prefill and of reuse.
struct CostModel {
  struct Point {
    int64_t tokens = 0;
    double seconds = 0;
  };
  std::vector<Point> prefill;            // ascending by tokens; empty: unknown
  double transfer_bytes_per_second = 0;  // 0: transfer counts nothing
};
struct CostPrediction {
  double prefill_seconds = 0;
  double reuse_seconds = 0;
};
CostPrediction PredictCost(const CostModel& model, int64_t target_tokens, double recomputed_share,
                           int64_t transfer_bytes);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_PLANNER_H_
