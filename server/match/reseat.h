// Reseating: moves stretches of rows to equal runs elsewhere that serve better.
//
// Which of several equal runs a passage takes changes nothing that is covered, but how far its rows
// are from what the engine would compute: rows belong to the company in which they were computed,
// and to the place. docs/plans.md, "Several references", has the measurements.
//
// Thread-safe: pure functions over values.
#ifndef SEMSHARE_SERVER_MATCH_RESEAT_H_
#define SEMSHARE_SERVER_MATCH_RESEAT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/match/exact_runs.h"
#include "server/match/run_order.h"

namespace semshare {

struct Texts {
  SymbolSpan target;
  absl::Span<const SymbolSpan> sources;
};

// Moves stretches behind the common prefix to equal runs of the chosen sources that continue their
// neighbours, or stand in the same order within their source, so that repeated passages keep order
// and continuity.
void KeepTogether(const Texts& texts, absl::Span<const Run> runs, const std::vector<int>& chosen,
                  int64_t prefix, std::vector<TokenRow>& rows);

// When a further source is worth using.
struct Further {
  int max_references = 0;    // in all
  int64_t least_tokens = 0;  // that it must give better rows
};

// Where passages behind the common prefix have changed places, gives each to the chosen source in
// which it has moved least, then to sources that are not chosen but hold it at half the
// displacement or less. Such a passage has at least kMovedPassageTokens and continues neither of
// its neighbours. One token in kEdgeTokens may be missing at its ends, where texts agree by chance;
// those are left unmatched, to be filled. Prompts that keep a source's order stay with it: rows of
// two sources would be worth a costlier plan.
inline constexpr int64_t kMovedPassageTokens = 32;
inline constexpr int64_t kEdgeTokens = 16;
void MoveNearer(const Texts& texts, absl::Span<const Run> runs, const Further& further,
                int64_t prefix, const std::vector<int>& chosen, std::vector<TokenRow>& rows);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_RESEAT_H_
