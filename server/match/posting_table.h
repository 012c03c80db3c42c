// PostingTable: which references hold which hashes, for hundreds of millions of such pairs.
//
// A reference is a small number (slot) that the caller gives out. A hash lists at most `cap` slots;
// one that more references hold has one entry more, which counts them all, so that what every
// reference shares costs no more than what `cap` of them do.
//
//    63          32 31  30        0
//   +--------------+---+-----------+    0: a slot + 1; 1: how many references hold the hash, which
//   | tag          | ? |           |    more than `cap` did at once. An empty place is 0.
//   +--------------+---+-----------+
//
// The top bits of a hash choose a shard, the next 32 are its tag; what lies below is dropped, so
// two hashes are taken for one with a chance of 2^-42: hits are verified by whoever compares ids. A
// shard is an ordered hash table (Amble and Knuth, 1974): entries lie in the order of tags, each at
// the place that its tag points to or after it, up to nine tenths full, and growing copies once
// from front to back. Shards grow by amounts of their own, so that they do not all grow at once and
// memory follows the content evenly.
//
// Thread-safe: each shard has its lock, held for one hash by Add and Remove, for the hashes of one
// shard by Find, and while the shard grows (a copy of its few hundred kilobytes). Memory is kept
// for later entries when entries are removed.
#ifndef SEMSHARE_SERVER_MATCH_POSTING_TABLE_H_
#define SEMSHARE_SERVER_MATCH_POSTING_TABLE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"

namespace semshare {

class PostingTable {
 public:
  static constexpr int64_t kMaxSlots = (int64_t{1} << 31) - 1;

  // REQUIRES: cap >= 1.
  explicit PostingTable(int cap);
  ~PostingTable();

  // REQUIRES: slot < kMaxSlots; Remove is called with the hashes that were added, once. A hash that
  // was never added may be removed without effect if fewer than `cap` references hold it.
  void Add(uint32_t slot, absl::Span<const uint64_t> hashes);
  void Remove(uint32_t slot, absl::Span<const uint64_t> hashes);

  // Slot `slot` holds hashes[query], which `references` references hold in all.
  struct Hit {
    uint32_t slot = 0;
    int32_t query = 0;
    int32_t references = 0;
  };
  // Appends hits in no particular order, and none any more once there are `max_hits` or more.
  void Find(absl::Span<const uint64_t> hashes, size_t max_hits, std::vector<Hit>* hits) const;

  int64_t hashes() const { return hashes_.load(std::memory_order_relaxed); }
  int64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  struct Shard;

  Shard& ShardOf(uint64_t hash) const;

  const size_t cap_;
  const std::unique_ptr<Shard[]> shards_;
  std::atomic<int64_t> hashes_{0};
  std::atomic<int64_t> bytes_;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_POSTING_TABLE_H_
