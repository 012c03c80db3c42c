// Align: which rows of which sources a target prompt can take (method: exact runs, token fill,
// fuzzy fill; each step only on what the previous ones left over).
//
// Near-linear in the tokens of target and sources for any input; caps degrade to fewer matches.
// Thread-safe: a pure function.
#ifndef SEMSHARE_SERVER_MATCH_ALIGNER_H_
#define SEMSHARE_SERVER_MATCH_ALIGNER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "server/match/types.h"

namespace semshare {

struct AlignOptions {
  MatchMode mode = MatchMode::kToken;
  int64_t min_run_tokens = 8;       // shortest exact run
  int64_t fill_window_tokens = 32;  // how far a token fill looks around the predicted place
  int64_t min_fill_tokens = 1;      // shortest token fill
  int64_t fuzzy_window_tokens = 24;
  int max_references = 4;  // sources in one alignment
  int64_t max_segments = 65536;
};

// One unmatched target token that may take a fuzzy partner: candidates are source tokens
// [source_begin, source_end) of one source, around the predicted place.
struct FuzzyQuery {
  int64_t target = 0;
  int reference = 0;             // index into the sources
  int64_t predicted_source = 0;  // where the neighbouring runs put it
  int64_t source_begin = 0;
  int64_t source_end = 0;
};

// Answers each query with a source token, or -1. Supplied by the caller because it needs the
// model's embeddings and a device. Numbers, negations and rare tokens are the caller's to refuse.
using FuzzyMatcher = std::function<std::vector<int64_t>(absl::Span<const FuzzyQuery>)>;

// kExactPrefix: the longest common prefix with one source. kExact: runs. kToken: runs and token
// fill. kFuzzy: and fuzzy fill by `fuzzy`. kSemShareKv is not done here (paper_match.h). The last
// target token is never matched: its row is computed anyway. Tagged tokens match only tokens with
// an equal tag at the same place within the tag.
Alignment Align(const PromptView& target, absl::Span<const PromptView> sources,
                const AlignOptions& options, const FuzzyMatcher& fuzzy);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_ALIGNER_H_
