// Words of matching: modes, presets, alignments and plans, as plain values.
//
// Tokens are counted in int64_t indices. `target` is the new prompt, `source` a stored one.
// Thread-safe: values.
#ifndef SEMSHARE_SERVER_MATCH_TYPES_H_
#define SEMSHARE_SERVER_MATCH_TYPES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "storage/ids.h"

namespace semshare {

enum class MatchMode { kExactPrefix = 1, kExact = 2, kToken = 3, kFuzzy = 4, kSemShareKv = 5 };

enum class Preset {
  kAuto = 1,
  kFast = 2,
  kHeads = 3,
  kBalanced = 4,
  kFaithful = 5,
  kSemShareKv = 7,
};

enum class ResultKind {
  kExactPrefix = 1,
  kShifted = 2,
  kEdited = 3,
  kFuzzy = 4,
  kSemShareKv = 5,
  kMiss = 6,
  kFallback = 7,
};
inline constexpr int kResultKinds = 8;  // values of ResultKind are below it

enum class SegmentKind { kExact = 1, kToken = 2, kFuzzy = 3 };

// Half-open.
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const { return end - begin; }
  bool operator==(const TokenRange&) const = default;
};

// Target [target_begin, target_begin + tokens) takes the rows of source [source_begin, ...).
struct Segment {
  int64_t target_begin = 0;
  int reference = 0;  // index into the sources of the alignment
  int64_t source_begin = 0;
  int64_t tokens = 0;
  SegmentKind kind = SegmentKind::kExact;

  bool operator==(const Segment&) const = default;
};

struct Alignment {
  // Ascending in the target, disjoint; adjacent segments that continue each other with the same
  // kind are merged. References are renumbered densely: `references` has the index of each source.
  std::vector<Segment> segments;
  std::vector<int> references;
  int64_t matched_tokens = 0;
};

// A prompt as the aligner sees it. Views: the owner keeps them alive.
struct PromptView {
  absl::Span<const uint32_t> ids;
  absl::Span<const ContentTag> tags;
};

struct PriorRange {
  TokenRange range;
  float weight = 0;
};

// What the worker must recompute (proto: RecomputePlan).
// The numbers of the paper's mode (arXiv 2509.24832, section 4). The two alphas are not published:
// with these, layers compute 16 % on average and keep 58 % of 30 layers, which gives the paper's
// 6.25x and 42 %.
struct PaperOptions {
  double distance_scale = 30.0;  // similarity = clip(1 - distance / scale, 0, 1)
  double similarity_trigger = 0.8;
  double high_deviation_share = 0.4;  // no layer but the first computes more
  double attention_recovery = 0.55;   // share of layer 0's attention that hot tokens get
  double hot_weight = 0.5;
  double cold_weight = 0.1;
  double alpha_recompute = 0.825;  // layer l computes T * alpha^l tokens
  double alpha_retain = 0.977;     // and keeps max(least_retained, dynamic ratio) * T * alpha^l
  double least_retained = 0.8;
  bool retain = true;  // false: nothing is evicted
};

struct Plan {
  Preset preset = Preset::kFast;  // never kAuto
  std::vector<TokenRange> mandatory;
  std::vector<TokenRange> selected;
  int64_t asked_tokens = 0;  // > 0: the worker ranks
  std::vector<PriorRange> asked_prior;
  std::vector<int64_t> recompute_tokens;  // kSemShareKv: one per layer
  PaperOptions paper;                     // kSemShareKv
  std::vector<int64_t> sentinels;
  int sentinel_layer = 0;
  double sigma_limit = 0;
  int64_t question_tokens = 0;
  double recomputed_share = 0;  // predicted, sentinels included
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_TYPES_H_
