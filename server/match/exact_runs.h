// AssignExactRuns: gives target tokens the rows of maximal equal runs, longest first.
//
// Near-linear for any input: every diagonal (target position - source position) of a seed is
// measured once, common seeds look only at the places nearest to where the last run predicts, and
// runs are taken by a counting sort over their lengths.
//
// Thread-safe: pure functions over values.
#ifndef SEMSHARE_SERVER_MATCH_EXACT_RUNS_H_
#define SEMSHARE_SERVER_MATCH_EXACT_RUNS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/match/types.h"

namespace semshare {

// The row that one target token takes.
struct TokenRow {
  int source = -1;  // index into the sources; -1: unmatched
  SegmentKind kind = SegmentKind::kExact;
  int64_t position = 0;  // in the source

  bool matched() const { return source >= 0; }
  // Whether `next` takes the source row right after this one's.
  bool ContinuedBy(const TokenRow& next) const {
    return matched() && next.source == source && next.position == position + 1;
  }
};

struct RunOptions {
  int64_t min_run_tokens = 8;
  int max_references = 4;
};

// Work done, for tests that bound it on adversarial input.
struct RunWork {
  int64_t occurrences = 0;  // seed places looked at
  int64_t measured = 0;     // diagonals measured (a few hash compares each)
  int64_t taken = 0;        // runs popped, trimmed ones again
};

// `rows` has one entry for each symbol of `target`, all unmatched. A second source is used only
// where it adds enough (kMinimumGain in the .cc). A common prefix at offset 0 is taken as such.
RunWork AssignExactRuns(absl::Span<const uint32_t> target,
                        absl::Span<const std::vector<uint32_t>> sources, const RunOptions& options,
                        std::vector<TokenRow>& rows);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_EXACT_RUNS_H_
