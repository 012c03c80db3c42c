// SeedTable: where the short grams ("seeds") of a target occur in several sources, and how far two
// places agree. The engine of the aligner's exact runs.
//
// The sources lie one after the other in one text; a place in the text stands for (source,
// position). Lengths are found by hashes, so they are near-certain but not proven: whoever takes
// rows compares the symbols first (Verified).
//
// Thread-safe after construction. Does not own the symbols.
#ifndef SEMSHARE_SERVER_MATCH_SEED_TABLE_H_
#define SEMSHARE_SERVER_MATCH_SEED_TABLE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace semshare {

// Polynomial hashes of all prefixes modulo 2^61 - 1, so that any range's hash is one product.
class PrefixHash {
 public:
  // `powers` must outlive it and be longer than `symbols`.
  PrefixHash(absl::Span<const uint32_t> symbols, const std::vector<uint64_t>& powers);

  static std::vector<uint64_t> Powers(int64_t count);

  uint64_t Range(int64_t begin, int64_t tokens) const;

 private:
  const std::vector<uint64_t>& powers_;
  std::vector<uint64_t> prefix_;
};

class SeedTable {
 public:
  // A seed in more places than this is common: only the places nearest to the caller's hint count.
  static constexpr int64_t kMaxOccurrences = 32;
  static constexpr int64_t kCommonOccurrences = 8;

  // REQUIRES: seed_tokens >= 1; all symbols together < 2^31.
  SeedTable(absl::Span<const uint32_t> target, absl::Span<const std::vector<uint32_t>> sources,
            int64_t seed_tokens);
  SeedTable(const SeedTable&) = delete;
  SeedTable& operator=(const SeedTable&) = delete;

  int64_t target_tokens() const { return static_cast<int64_t>(target_.size()); }
  int64_t text_tokens() const { return static_cast<int64_t>(text_.size()); }
  int64_t seed_tokens() const { return seed_tokens_; }
  int sources() const { return static_cast<int>(begins_.size()) - 1; }

  int SourceOf(int64_t place) const;
  int64_t Begin(int source) const { return begins_[source]; }
  int64_t End(int source) const { return begins_[source + 1]; }

  // Places that may hold the seed at `target`, ascending; the ones nearest to `hint` if there are
  // many. Hash neighbours are among them: check with Forward.
  absl::Span<const int32_t> Occurrences(int64_t target, int64_t hint) const;

  // Equal symbols from (target, place) on, and before it, within one source.
  int64_t Forward(int64_t target, int64_t place) const;
  int64_t Backward(int64_t target, int64_t place) const;
  // Equal symbols from (target, place) on, at most `tokens`, compared one by one.
  int64_t Verified(int64_t target, int64_t place, int64_t tokens) const;

 private:
  size_t Bucket(uint64_t hash) const { return (hash * 0x9e3779b97f4a7c15u) >> shift_; }
  void FillBuckets();

  const absl::Span<const uint32_t> target_;
  const int64_t seed_tokens_;
  std::vector<uint32_t> text_;
  std::vector<int64_t> begins_;  // of each source, then the end of the text
  std::vector<uint64_t> powers_;
  PrefixHash target_hash_;
  PrefixHash text_hash_;
  int shift_ = 0;
  std::vector<int32_t> bucket_begins_;  // places of bucket b: places_[begins[b], begins[b + 1])
  std::vector<int32_t> places_;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_SEED_TABLE_H_
