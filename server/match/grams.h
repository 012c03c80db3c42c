// Winnowed grams of token ids, and what references share by the grams that they hold.
//
// A gram is a keyed hash of `gram_tokens` consecutive ids; of every `winnow_window` consecutive
// grams the smallest is kept (Schleimer, Wilkerson and Aiken, 2003), so two prompts that share a
// run of gram_tokens + winnow_window - 1 ids share a kept gram at the same place of the run.
//
// Thread-safe: pure functions; the table that FindGrams reads is thread-safe, too.
#ifndef SEMSHARE_SERVER_MATCH_GRAMS_H_
#define SEMSHARE_SERVER_MATCH_GRAMS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/match/posting_table.h"

namespace semshare {

struct Gram {
  uint64_t hash = 0;
  int64_t position = 0;  // of its first token
};

struct GramOptions {
  int gram_tokens = 20;
  int winnow_window = 21;
  int cap = 64;
  uint64_t key = 0;
};

// The kept grams, ascending by position; neighbours are at most winnow_window apart. None if the
// prompt is shorter than a gram.
std::vector<Gram> Winnow(absl::Span<const uint32_t> ids, const GramOptions& options);

// The hashes of the grams, each once, ascending.
std::vector<uint64_t> DistinctHashes(absl::Span<const Gram> grams);

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
