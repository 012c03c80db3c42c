#include "storage/chunk_table.h"

#include <utility>

#include "kernels/base/status_macros.h"

namespace semshare {

ChunkEntry* ChunkTable::Find(const ChunkId& id) {
  const auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : it->second.get();
}

const ChunkEntry* ChunkTable::Find(const ChunkId& id) const {
  const auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : it->second.get();
}

bool ChunkTable::Evictable(const ChunkEntry& entry) {
  return entry.place == ChunkPlace::kResident && entry.durable && entry.pins == 0;
}

void ChunkTable::Count(ChunkEntry* entry, int64_t sign) {
  if (entry->place == ChunkPlace::kResident) resident_ += sign;
  if (entry->durable) durable_ += sign;
  if (entry->pins > 0) pinned_ += sign;
  if (!Evictable(*entry)) return;
  if (sign > 0) {
    evictable_.insert(entry);
  } else {
    evictable_.erase(entry);
  }
}

ChunkEntry* ChunkTable::Insert(ChunkMeta meta) {
  const ChunkId id = meta.id;
  std::unique_ptr<ChunkEntry>& slot = entries_[id];
  SEMSHARE_CHECK(slot == nullptr);
  slot = std::make_unique<ChunkEntry>();
  slot->meta = std::move(meta);
  slot->used = ++clock_;
  slot->on_disk = garbage_.erase(id) > 0;
  return slot.get();
}

void ChunkTable::ForgetIfUnused(ChunkEntry* entry) {
  if (entry->references > 0 || entry->pins > 0 || entry->persisting ||
      entry->place == ChunkPlace::kLoading) {
    return;
  }
  Count(entry, -1);
  if (entry->place == ChunkPlace::kResident) arena_.Free(entry->offset);
  if (entry->on_disk) garbage_.insert(entry->meta.id);
  entries_.erase(entry->meta.id);
}

void ChunkTable::Evict(ChunkEntry* entry) {
  SEMSHARE_CHECK(Evictable(*entry));
  const ChunkEdit edit(this, entry);
  arena_.Free(entry->offset);
  entry->place = ChunkPlace::kAbsent;
  ++evicted_;
}

std::optional<int64_t> ChunkTable::Allocate(int64_t bytes) {
  if (const std::optional<int64_t> offset = arena_.Allocate(bytes)) return offset;
  // The least valuable chunk alone gives room if its superblock serves this size. Otherwise a whole
  // superblock must empty: the first one in order of value whose chunks may all go.
  absl::flat_hash_map<int64_t, std::vector<ChunkEntry*>> seen;
  for (ChunkEntry* entry : evictable_) {
    const int64_t superblock = arena_.SuperblockOf(entry->offset);
    std::vector<ChunkEntry*>& victims = seen[superblock];
    victims.push_back(entry);
    if (arena_.Serves(superblock, bytes)) {
      Evict(entry);
      return arena_.Allocate(bytes);
    }
    if (static_cast<int64_t>(victims.size()) == arena_.LiveSlots(superblock)) {
      const std::vector<ChunkEntry*> all = std::move(victims);
      for (ChunkEntry* victim : all) Evict(victim);
      return arena_.Allocate(bytes);
    }
  }
  return std::nullopt;
}

void ChunkTable::EvictDownTo(int64_t bytes) {
  while (arena_.bytes_used() > bytes && !evictable_.empty()) Evict(*evictable_.begin());
}

std::vector<ChunkId> ChunkTable::BeginDeleteGarbage() {
  std::vector<ChunkId> ids;
  for (const ChunkId& id : garbage_) {
    // A forgotten chunk of an id that is being deleted waits for the next time, so that one
    // deletion owns each id.
    if (deleting_.insert(id).second) ids.push_back(id);
  }
  for (const ChunkId& id : ids) garbage_.erase(id);
  return ids;
}

std::vector<ChunkId> ChunkTable::BeginDeleteUnknown(absl::Span<const ChunkId> ids) {
  std::vector<ChunkId> unknown;
  for (const ChunkId& id : ids) {
    if (entries_.contains(id) || !deleting_.insert(id).second) continue;
    garbage_.erase(id);
    unknown.push_back(id);
  }
  return unknown;
}

void ChunkTable::EndDelete(absl::Span<const ChunkId> ids, bool deleted) {
  for (const ChunkId& id : ids) {
    deleting_.erase(id);
    if (deleted) continue;
    if (ChunkEntry* entry = Find(id); entry != nullptr) {
      entry->on_disk = true;
    } else {
      garbage_.insert(id);
    }
  }
}

ChunkStoreStats ChunkTable::stats() const {
  ChunkStoreStats stats;
  stats.chunks = static_cast<int64_t>(entries_.size());
  stats.chunks_resident = resident_;
  stats.chunks_durable = durable_;
  stats.chunks_pinned = pinned_;
  stats.device_bytes_used = arena_.bytes_used();
  stats.device_bytes_total = arena_.bytes_total();
  stats.evicted_chunks = evicted_;
  stats.loaded_chunks = loaded_chunks;
  stats.quarantined_chunks = quarantined_chunks;
  return stats;
}

}  // namespace semshare
