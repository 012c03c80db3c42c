// AssignExactRuns: gives target tokens the rows of maximal equal runs, longest first.
//
// Seeds of the target are looked up while the sources are streamed past them, in two passes. The
// first takes every kSeedStride-th seed of the target, which finds long runs, and goes on in a
// source where a run that it has found ends; the second all those that hold a token still
// uncovered. So what agrees at length, which is most of a good match, costs little more than
// comparing it.
//
// Near-linear for any input: a run is measured once in each pass, common seeds look only at the
// places nearest to where the last run predicts, and runs are taken by a counting sort over their
// lengths.
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

using SymbolSpan = absl::Span<const uint32_t>;

// The first pass asks for one seed of the target in this many.
inline constexpr int64_t kSeedStride = 16;

struct RunOptions {
  int64_t min_run_tokens = 8;
  int max_references = 4;
};

// Work done, for tests that bound it on adversarial input.
struct RunWork {
  int64_t occurrences = 0;  // seed places looked at
  int64_t measured = 0;     // runs measured, symbol by symbol
  int64_t taken = 0;        // runs popped, trimmed ones again
};

// `rows` has one entry for each symbol of `target`, all unmatched. A second source is used only
// where it adds enough (kMinimumGain in the .cc). A common prefix at offset 0 is taken as such.
RunWork AssignExactRuns(SymbolSpan target, absl::Span<const SymbolSpan> sources,
                        const RunOptions& options, std::vector<TokenRow>& rows);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_EXACT_RUNS_H_
