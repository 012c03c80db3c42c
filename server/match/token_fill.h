// Fills: gives left-over target tokens rows near the places that their neighbouring runs predict.
//
// Token fill takes the same symbol; fuzzy fill asks a FuzzyMatcher for a similar one. Both work gap
// by gap. Where the runs beside a gap come from one source in order, the gap's rows lie between
// theirs; otherwise each half of the gap follows the run beside it.
//
// Thread-safe: pure functions over values.
#ifndef SEMSHARE_SERVER_MATCH_TOKEN_FILL_H_
#define SEMSHARE_SERVER_MATCH_TOKEN_FILL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/match/aligner.h"
#include "server/match/exact_runs.h"

namespace semshare {

// Fills of at least options.min_fill_tokens tokens, each the same symbol, ascending in the source,
// within options.fill_window_tokens of a predicted place. Near-linear: a token has at most
// kMaxFillPlaces places, the nearest.
inline constexpr int kMaxFillPlaces = 8;
void FillTokens(SymbolSpan target, absl::Span<const SymbolSpan> sources,
                const AlignOptions& options, std::vector<TokenRow>& rows);

// `fuzzy` chooses; an answer outside its query's range, of a blocked token, or of a row that is
// taken already is dropped. blocked_target and blocked_sources mark tokens that may not take part;
// an empty list blocks nothing.
struct FuzzyBlocks {
  std::vector<bool> target;
  std::vector<std::vector<bool>> sources;
};
void FillFuzzy(absl::Span<const int64_t> source_tokens, const FuzzyBlocks& blocks,
               const AlignOptions& options, const FuzzyMatcher& fuzzy, std::vector<TokenRow>& rows);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_TOKEN_FILL_H_
