#include "server/match/posting_table.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "kernels/base/mutex.h"
#include "kernels/base/status_macros.h"
#include "server/match/mix.h"

namespace semshare {
namespace {

constexpr int kShardBits = 10;
constexpr size_t kShards = size_t{1} << kShardBits;
constexpr uint32_t kCounter = uint32_t{1} << 31;

size_t ShardNumber(uint64_t hash) { return hash >> (64 - kShardBits); }
uint32_t TagOfHash(uint64_t hash) { return static_cast<uint32_t>(hash >> (32 - kShardBits)); }

uint64_t Entry(uint32_t tag, uint32_t value) { return uint64_t{tag} << 32 | value; }
uint32_t TagOf(uint64_t entry) { return static_cast<uint32_t>(entry >> 32); }
bool IsCounter(uint64_t entry) { return (entry & kCounter) != 0; }

// Where a tag belongs among `homes` places: in the order of tags.
size_t Home(uint32_t tag, uint64_t homes) { return (tag * homes) >> 32; }

}  // namespace

struct PostingTable::Shard {
  // The entries of a tag: listed slots at [first, end), then perhaps the counter.
  struct Range {
    size_t first = 0;
    size_t end = 0;
    bool counted = false;

    size_t listed() const { return end - first; }
  };

  bool Holds(size_t at, uint32_t tag) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return entries[at] != 0 && TagOf(entries[at]) == tag;
  }
  // REQUIRES: the shard has grown once.
  Range Find(uint32_t tag) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Range range;
    range.first = Home(tag, homes);
    while (entries[range.first] != 0 && TagOf(entries[range.first]) < tag) ++range.first;
    range.end = range.first;
    while (Holds(range.end, tag) && !IsCounter(entries[range.end])) ++range.end;
    range.counted = Holds(range.end, tag);
    return range;
  }
  bool Insert(size_t at, uint64_t entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void Erase(size_t at) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void Grow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  bool IsFull() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return 10 * (used + 1) > size_t{9} * homes;
  }

  // Asks for the memory of a tag. Needs no lock: what it is told may be old, and costs time only.
  void Prefetch(uint32_t tag) const {
    const uint64_t* const places = fetched_places.load(std::memory_order_relaxed);
    if (places == nullptr) return;
    __builtin_prefetch(places + Home(tag, fetched_homes.load(std::memory_order_relaxed)));
  }

  std::atomic<const uint64_t*> fetched_places{nullptr};
  std::atomic<uint32_t> fetched_homes{0};
  mutable Mutex mutex;
  // `homes` places that tags point to, and some more for what does not fit; the last one is always
  // empty, so that searches end there.
  std::vector<uint64_t> entries ABSL_GUARDED_BY(mutex);
  uint32_t homes ABSL_GUARDED_BY(mutex) = 0;
  uint32_t used ABSL_GUARDED_BY(mutex) = 0;
};

// False if there is no room up to the end, although there may be room elsewhere.
bool PostingTable::Shard::Insert(size_t at, uint64_t entry) {
  size_t empty = at;
  while (entries[empty] != 0) ++empty;
  if (empty + 1 == entries.size()) return false;
  std::move_backward(entries.begin() + static_cast<int64_t>(at),
                     entries.begin() + static_cast<int64_t>(empty),
                     entries.begin() + static_cast<int64_t>(empty) + 1);
  entries[at] = entry;
  ++used;
  return true;
}

void PostingTable::Shard::Erase(size_t at) {
  size_t next = at + 1;
  for (; entries[next] != 0 && Home(TagOf(entries[next]), homes) < next; ++next) {
    entries[next - 1] = entries[next];
  }
  entries[next - 1] = 0;
  --used;
}

void PostingTable::Shard::Grow() {
  while (true) {
    homes += 8 + homes / 16 +
             static_cast<uint32_t>(Mix(homes ^ (entries.size() << 32) ^ used) % (homes / 8 + 8));
    std::vector<uint64_t> grown(homes + homes / 64 + 9);
    size_t at = 0;  // the first free place
    bool fits = true;
    for (const uint64_t entry : entries) {
      if (entry == 0) continue;
      at = std::max(at, Home(TagOf(entry), homes));
      fits = at + 1 < grown.size();
      if (!fits) break;
      grown[at++] = entry;
    }
    if (!fits) continue;
    entries = std::move(grown);
    fetched_places.store(entries.data(), std::memory_order_relaxed);
    fetched_homes.store(homes, std::memory_order_relaxed);
    return;
  }
}

PostingTable::PostingTable(int cap)
    : cap_(static_cast<size_t>(cap)), shards_(new Shard[kShards]), bytes_(kShards * sizeof(Shard)) {
  SEMSHARE_CHECK(cap >= 1);
}

PostingTable::~PostingTable() = default;

PostingTable::Shard& PostingTable::ShardOf(uint64_t hash) const {
  return shards_[ShardNumber(hash)];
}

void PostingTable::Add(uint32_t slot, absl::Span<const uint64_t> hashes) {
  SEMSHARE_CHECK(slot < kMaxSlots);
  for (const uint64_t hash : hashes) {
    Shard& shard = ShardOf(hash);
    const uint32_t tag = TagOfHash(hash);
    const MutexLock lock(&shard.mutex);
    const size_t before = shard.entries.size();
    if (shard.IsFull()) shard.Grow();
    while (true) {
      const Shard::Range range = shard.Find(tag);
      const bool listed = range.listed() < cap_;
      const uint32_t value = listed ? slot + 1 : kCounter | static_cast<uint32_t>(cap_ + 1);
      if ((listed || !range.counted) && !shard.Insert(range.end, Entry(tag, value))) {
        shard.Grow();
        continue;
      }
      if (range.counted) ++shard.entries[range.end + (listed ? 1 : 0)];
      if (range.listed() == 0 && !range.counted) hashes_.fetch_add(1, std::memory_order_relaxed);
      break;
    }
    bytes_.fetch_add(static_cast<int64_t>((shard.entries.size() - before) * sizeof(uint64_t)),
                     std::memory_order_relaxed);
  }
}

void PostingTable::Remove(uint32_t slot, absl::Span<const uint64_t> hashes) {
  for (const uint64_t hash : hashes) {
    Shard& shard = ShardOf(hash);
    const uint32_t tag = TagOfHash(hash);
    const MutexLock lock(&shard.mutex);
    if (shard.used == 0) continue;
    Shard::Range range = shard.Find(tag);
    const auto held =
        std::find(shard.entries.begin() + static_cast<int64_t>(range.first),
                  shard.entries.begin() + static_cast<int64_t>(range.end), Entry(tag, slot + 1));
    const size_t at = static_cast<size_t>(held - shard.entries.begin());
    const bool found = at < range.end;
    if (!found && !range.counted) continue;
    if (range.counted) {
      // A hash whose listed references are all gone may have others left: they were never listed,
      // and are found by their other hashes.
      const auto references = static_cast<uint32_t>(--shard.entries[range.end]) & ~kCounter;
      const size_t listed = range.listed() - (found ? 1 : 0);
      if (references <= listed) {
        shard.Erase(range.end);
        range.counted = false;
      }
    }
    if (found) {
      shard.Erase(at);
      --range.end;
    }
    if (range.listed() == 0 && !range.counted) hashes_.fetch_sub(1, std::memory_order_relaxed);
  }
}

void PostingTable::Find(absl::Span<const uint64_t> hashes, size_t max_hits,
                        std::vector<Hit>* hits) const {
  // By shard, so that each is locked once; memory is asked for some hashes ahead.
  constexpr size_t kAhead = 32;
  std::vector<uint32_t> ends(kShards + 1);
  for (const uint64_t hash : hashes) ++ends[ShardNumber(hash) + 1];
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  std::vector<uint32_t> order(hashes.size());
  for (size_t i = 0; i < hashes.size(); ++i) {
    order[ends[ShardNumber(hashes[i])]++] = static_cast<uint32_t>(i);
  }
  const auto prefetch = [&](size_t at) {
    if (at + kAhead < order.size()) __builtin_prefetch(&ShardOf(hashes[order[at + kAhead]]));
    if (at >= order.size()) return;
    const uint64_t hash = hashes[order[at]];
    ShardOf(hash).Prefetch(TagOfHash(hash));
  };
  for (size_t at = 0; at < kAhead; ++at) prefetch(at);
  for (size_t begin = 0, number = 0; number < kShards; ++number) {
    const size_t end = ends[number];
    if (begin == end) continue;
    if (hits->size() >= max_hits) return;
    const Shard& shard = shards_[number];
    const MutexLock lock(&shard.mutex);
    for (; begin < end; ++begin) {
      prefetch(begin + kAhead);
      if (shard.used == 0) continue;
      const uint32_t i = order[begin];
      const Shard::Range range = shard.Find(TagOfHash(hashes[i]));
      const auto references = range.counted
                                  ? static_cast<uint32_t>(shard.entries[range.end]) & ~kCounter
                                  : static_cast<uint32_t>(range.listed());
      for (size_t at = range.first; at < range.end; ++at) {
        hits->push_back({static_cast<uint32_t>(shard.entries[at]) - 1, static_cast<int32_t>(i),
                         static_cast<int32_t>(references)});
      }
    }
  }
}

}  // namespace semshare
