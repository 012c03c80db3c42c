// GramIndex: winnowed grams of token ids, and which references hold them.
//
// A gram is a keyed hash of `gram_tokens` consecutive ids; of every `winnow_window` consecutive
// grams the smallest is kept (Schleimer, Wilkerson and Aiken, 2003), so two prompts that share a
// run of gram_tokens + winnow_window - 1 ids share a kept gram at the same place of the run.
//
// A reference is a small number (slot) that the caller gives out. A posting holds at most `cap`
// slots: a gram in more references is counted, but says nothing about the later ones.
//
// Winnow is a pure function. GramIndex is not thread-safe: the caller holds a lock.
#ifndef SEMSHARE_SERVER_MATCH_GRAM_INDEX_H_
#define SEMSHARE_SERVER_MATCH_GRAM_INDEX_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace semshare {

struct Gram {
  uint64_t hash = 0;
  int64_t position = 0;  // of its first token
};

struct GramOptions {
  int gram_tokens = 24;
  int winnow_window = 17;
  int cap = 64;
  uint64_t key = 0;
};

// The kept grams, ascending by position; neighbours are at most winnow_window apart. None if the
// prompt is shorter than a gram.
std::vector<Gram> Winnow(absl::Span<const uint32_t> ids, const GramOptions& options);

class GramIndex {
 public:
  explicit GramIndex(int cap) : cap_(cap) {}

  // REQUIRES: `hashes` are distinct; Remove is called with the same ones.
  void Add(uint32_t slot, absl::Span<const uint64_t> hashes);
  void Remove(uint32_t slot, absl::Span<const uint64_t> hashes);

  // Slot `slot` holds the gram `query` (an index into the query's grams), which `references`
  // references hold in all.
  struct Hit {
    uint32_t slot = 0;
    int32_t query = 0;
    int32_t references = 0;
  };
  // Ascending by slot, then query.
  std::vector<Hit> Find(absl::Span<const Gram> grams) const;

  int64_t grams() const { return static_cast<int64_t>(postings_.size()); }
  int64_t bytes() const;

 private:
  struct Posting {
    std::vector<uint32_t> slots;
    int32_t references = 0;  // also those beyond the cap
  };

  const int cap_;
  absl::flat_hash_map<uint64_t, Posting> postings_;
  int64_t slot_entries_ = 0;
};

// How much of a query each reference shares, by its hits.
struct GramShare {
  uint32_t slot = 0;
  double tokens = 0;  // estimated tokens of the query that the reference holds
};

// At most `count` references that cover the query best together: each next one adds the most
// tokens that those before it lack, so that a preamble that many references share is covered by
// one of them. Grams over the cap weigh less. Ascending order of choice.
std::vector<GramShare> ChooseByCoverage(absl::Span<const Gram> grams,
                                        absl::Span<const GramIndex::Hit> hits,
                                        const GramOptions& options, int count);

// Every reference with its share, in the order of slots; `grams` and `hits` as above.
std::vector<GramShare> SharesBySlot(absl::Span<const Gram> grams,
                                    absl::Span<const GramIndex::Hit> hits,
                                    const GramOptions& options);

// Which tokens of the query lie in a gram that some reference holds.
std::vector<bool> CoveredByGrams(absl::Span<const Gram> grams,
                                 absl::Span<const GramIndex::Hit> hits, const GramOptions& options,
                                 int64_t tokens);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_GRAM_INDEX_H_
