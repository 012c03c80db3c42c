// SeedTable: where the short grams ("seeds") of a target begin, by hash. Texts are streamed past it
// with SeedHasher. The engine of the aligner's exact runs.
//
// A hash is no proof: whoever takes a place compares the symbols first (CommonPrefix).
//
// Thread-safe after construction. Does not keep the symbols.
#ifndef SEMSHARE_SERVER_MATCH_SEED_TABLE_H_
#define SEMSHARE_SERVER_MATCH_SEED_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace semshare {

// Symbols that `a` and `b` have in common at their beginnings, and at their ends.
int64_t CommonPrefix(absl::Span<const uint32_t> a, absl::Span<const uint32_t> b);
int64_t CommonSuffix(absl::Span<const uint32_t> a, absl::Span<const uint32_t> b);

// Hashes of all seeds of a text, one after the other: a polynomial modulo 2^64, rolled. Not
// thread-safe; the text must outlive it.
class SeedHasher {
 public:
  // REQUIRES: 1 <= seed_tokens <= text.size().
  SeedHasher(absl::Span<const uint32_t> text, int64_t seed_tokens);

  // Of the seed at the next position, from 0 on. REQUIRES: there is one.
  uint64_t Next() {
    const uint64_t hash = rolling_ * kMultiplier + Symbol(end_);
    rolling_ = hash - Symbol(end_ - seed_tokens_ + 1) * leading_;
    ++end_;
    return hash;
  }

  // Goes on to the first seed at or after `position` whose hash is wanted; false if there is none.
  template <typename Wanted>
  bool Seek(int64_t position, const Wanted& wanted, uint64_t* hash) {
    if (position != end_ - seed_tokens_ + 1) SkipTo(position);
    // A copy, so that it stays in registers.
    SeedHasher next = *this;
    const auto end = static_cast<int64_t>(text_.size());
    bool found = false;
    while (!found && next.end_ < end) {
      *hash = next.Next();
      found = wanted(*hash);
    }
    rolling_ = next.rolling_;
    end_ = next.end_;
    return found;
  }

  // Of the seed that Next or Seek gave last.
  int64_t position() const { return end_ - seed_tokens_; }

 private:
  static constexpr uint64_t kMultiplier = 0xd6e8feb86659fd93u;
  uint64_t Symbol(int64_t at) const { return uint64_t{text_.data()[at]} + 1; }

  void SkipTo(int64_t position) {
    rolling_ = 0;
    for (end_ = position; end_ + 1 < position + seed_tokens_; ++end_) {
      rolling_ = rolling_ * kMultiplier + Symbol(end_);
    }
  }

  const absl::Span<const uint32_t> text_;
  const int64_t seed_tokens_;
  uint64_t leading_ = 1;  // kMultiplier ^ (seed_tokens - 1)
  int64_t end_ = 0;       // the last symbol of the next seed
  uint64_t rolling_ = 0;  // of the seed's symbols before that
};

class SeedTable {
 public:
  // A seed that begins at more places than this is common: only the places nearest to the caller's
  // hint count.
  static constexpr int64_t kMaxOccurrences = 32;
  static constexpr int64_t kCommonOccurrences = 8;

  // Of the seeds that begin at `positions`.
  // REQUIRES: positions ascend; each has seed_tokens >= 1 symbols of `target` from it on.
  SeedTable(absl::Span<const uint32_t> target, std::vector<int32_t> positions, int64_t seed_tokens);

  int64_t seed_tokens() const { return seed_tokens_; }

  // False for most hashes that Find has nothing for; made for asking about every seed of a text.
  bool MayHold(uint64_t hash) const {
    const size_t bucket = Bucket(hash);
    return (held_[bucket / 64] >> (bucket % 64) & 1) != 0;
  }

  struct Occurrences {
    absl::Span<const int32_t> positions;
    bool common = false;
  };
  // Positions of seeds that may have this hash, ascending; the ones nearest to `hint` if the seed
  // is common.
  Occurrences Find(uint64_t hash, int64_t hint) const {
    const size_t bucket = Bucket(hash);
    const int32_t begin = begins_[bucket];
    const int32_t count = begins_[bucket + 1] - begin;
    const absl::Span<const int32_t> all(positions_.data() + begin, static_cast<size_t>(count));
    if (count <= kMaxOccurrences) return {all, false};
    return {Nearest(all, hint), true};
  }

 private:
  static absl::Span<const int32_t> Nearest(absl::Span<const int32_t> all, int64_t hint);
  size_t Bucket(uint64_t hash) const { return (hash * 0x9e3779b97f4a7c15u) >> shift_; }

  const int64_t seed_tokens_;
  int shift_ = 0;
  std::vector<uint64_t> held_;      // a bit for each bucket: it is not empty
  std::vector<int32_t> begins_;     // bucket b: positions_[begins_[b], begins_[b + 1])
  std::vector<int32_t> positions_;  // by bucket, ascending in each
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_SEED_TABLE_H_
