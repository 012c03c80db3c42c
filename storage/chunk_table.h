// ChunkTable: what a ChunkStore knows of its chunks, without any work on disk or device. Internal
// to storage/.
//
// Entries, the arena's runs, the order of eviction, and which records on disk are garbage. All
// changes of an entry happen inside a ChunkEdit, which keeps counts and the order of eviction
// right.
//
// Not thread-safe: the ChunkStore guards it with its lock. The table owns its entries; a pointer to
// one is good until it is forgotten.
#ifndef SEMSHARE_STORAGE_CHUNK_TABLE_H_
#define SEMSHARE_STORAGE_CHUNK_TABLE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "storage/arena.h"
#include "storage/chunk_store.h"
#include "storage/ids.h"

namespace semshare {

enum class ChunkPlace {
  kAbsent,    // not in the arena: on disk, or quarantined
  kLoading,   // has a run of the arena that one PinAll fills from disk
  kResident,  // its bytes are in the arena
};

struct ChunkEntry {
  ChunkMeta meta;
  int references = 0;
  int pins = 0;  // > 0 only where resident
  ChunkPlace place = ChunkPlace::kAbsent;
  int64_t offset = 0;        // of its run, unless absent
  bool durable = false;      // its record on disk is synced and not known to be bad
  bool on_disk = false;      // some record may be on disk, good, bad or half written
  bool persisting = false;   // one Persist is writing its record
  bool quarantined = false;  // its record was bad; absent and not durable
  uint64_t used = 0;         // when it was pinned last; unique, so that the order is total
};

class ChunkTable {
 public:
  explicit ChunkTable(int64_t superblocks) : arena_(superblocks) {}

  // Null if there is none.
  ChunkEntry* Find(const ChunkId& id);
  // Asks for the memory that Find will read.
  void Prefetch(const ChunkId& id) const { entries_.prefetch(id); }
  const ChunkEntry* Find(const ChunkId& id) const;

  // Adds an entry that is absent, without references. A record that waited to be deleted belongs to
  // it from now on. REQUIRES: the id is not known.
  ChunkEntry* Insert(ChunkMeta meta);

  // Removes an entry that nobody uses: no references, pins, load or write. Its run is freed; its
  // record on disk becomes garbage. Does nothing to other entries.
  void ForgetIfUnused(ChunkEntry* entry);

  // A run of the arena, evicting what is least valuable where needed: lower priority first, then
  // least recently pinned. None, and nothing evicted, if that can not give room.
  std::optional<int64_t> Allocate(int64_t bytes);
  void Free(int64_t offset) { arena_.Free(offset); }

  // Evicts in the same order until at most `bytes` of the arena are in use.
  void EvictDownTo(int64_t bytes);

  // Moves all garbage to the ids being deleted and returns it.
  std::vector<ChunkId> BeginDeleteGarbage();
  // Moves those ids to the ids being deleted that are not known, and returns them.
  std::vector<ChunkId> BeginDeleteUnknown(absl::Span<const ChunkId> ids);
  bool IsBeingDeleted(const ChunkId& id) const { return deleting_.contains(id); }
  // Ends the deletion of ids; after a failed one their records are garbage still.
  void EndDelete(absl::Span<const ChunkId> ids, bool deleted);

  ChunkStoreStats stats() const;

  // Counters that only the store can know.
  int64_t loaded_chunks = 0;
  int64_t quarantined_chunks = 0;

 private:
  friend class ChunkEdit;
  struct ByValue {
    bool operator()(const ChunkEntry* a, const ChunkEntry* b) const {
      if (a->meta.priority != b->meta.priority) return a->meta.priority < b->meta.priority;
      return a->used < b->used;
    }
  };

  static bool Evictable(const ChunkEntry& entry);
  void Count(ChunkEntry* entry, int64_t sign);
  void Evict(ChunkEntry* entry);

  Arena arena_;
  absl::flat_hash_map<ChunkId, std::unique_ptr<ChunkEntry>> entries_;
  std::set<ChunkEntry*, ByValue> evictable_;  // least valuable first
  // Ids whose records are to be deleted; never known ones.
  absl::flat_hash_set<ChunkId> garbage_;
  // Ids whose records a DiskTier::Delete is deleting. A chunk of such an id may be published, but
  // its record must not be written before the deletion has ended.
  absl::flat_hash_set<ChunkId> deleting_;
  uint64_t clock_ = 0;
  int64_t resident_ = 0;
  int64_t durable_ = 0;
  int64_t pinned_ = 0;
  int64_t evicted_ = 0;
};

// Takes an entry out of counts and order while it lives and puts it back as it then is.
class ChunkEdit {
 public:
  ChunkEdit(ChunkTable* table, ChunkEntry* entry) : table_(table), entry_(entry) {
    table_->Count(entry_, -1);
  }
  ~ChunkEdit() { table_->Count(entry_, 1); }
  ChunkEdit(const ChunkEdit&) = delete;
  ChunkEdit& operator=(const ChunkEdit&) = delete;

  ChunkEntry* operator->() const { return entry_; }
  // Counts a use: the entry becomes the most recently used one.
  void Touch() { entry_->used = ++table_->clock_; }

 private:
  ChunkTable* const table_;
  ChunkEntry* const entry_;
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_CHUNK_TABLE_H_
