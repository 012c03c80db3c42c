// What references share with a query, by the winnowed grams that they hold.
//
// Thread-safe: pure functions; the table that FindGrams reads is thread-safe, too.
#ifndef SEMSHARE_SERVER_MATCH_GRAMS_H_
#define SEMSHARE_SERVER_MATCH_GRAMS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/match/posting_table.h"
#include "server/match/winnow.h"

namespace semshare {

// A reference holds grams[hit.query]. Ascending by slot, then query.
using GramHit = PostingTable::Hit;
std::vector<GramHit> FindGrams(const PostingTable& table, absl::Span<const Gram> grams);

// How much of a query each reference shares, by its hits.
struct GramShare {
  uint32_t slot = 0;
  double tokens = 0;  // estimated tokens of the query that the reference holds
};

// At most `count` references that cover the query best together: each next one adds the most
// tokens that those before it lack, so that a preamble that many references share is covered by
// one of them. Grams over the cap weigh less. Ascending order of choice.
std::vector<GramShare> ChooseByCoverage(absl::Span<const Gram> grams,
                                        absl::Span<const GramHit> hits, const GramOptions& options,
                                        int count);

// Every reference with its share, in the order of slots; `grams` and `hits` as above.
std::vector<GramShare> SharesBySlot(absl::Span<const Gram> grams, absl::Span<const GramHit> hits,
                                    const GramOptions& options);

// Which tokens of the query lie in a gram that some reference holds.
std::vector<bool> CoveredByGrams(absl::Span<const Gram> grams, absl::Span<const GramHit> hits,
                                 const GramOptions& options, int64_t tokens);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_GRAMS_H_
