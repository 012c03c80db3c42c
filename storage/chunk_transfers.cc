// The parts of ChunkStoreImpl that move bytes: writing to disk, loading and pinning.
#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "storage/chunk_store_impl.h"

namespace semshare {
namespace {

absl::Status Unknown(const ChunkId& id) {
  return absl::NotFoundError(absl::StrCat("chunk ", id.ToHex(), " is not known"));
}

absl::Status Quarantined(const ChunkId& id) {
  return absl::DataLossError(
      absl::StrCat("chunk ", id.ToHex(), " is quarantined: its record on disk was bad"));
}

ChunkTransfer TransferOf(const ChunkEntry& entry) {
  ChunkTransfer transfer;
  transfer.record.ns = entry.meta.ns;
  transfer.record.id = entry.meta.id;
  transfer.record.parent = entry.meta.parent;
  transfer.record.tokens = static_cast<uint16_t>(entry.meta.token_ids.size());
  transfer.record.payload_bytes = entry.meta.bytes;
  transfer.offset = entry.offset;
  return transfer;
}

}  // namespace

// ---- Writing --------------------------------------------------------------------------------

// Marks those chunks that nobody has written or writes, and returns them. Waits while all that is
// left to do is done by others. Empty: all are durable.
absl::Status ChunkStoreImpl::TakeWrites(absl::Span<const ChunkId> ids,
                                        std::vector<ChunkTransfer>* writes) {
  const MutexLock lock(&mutex_);
  while (true) {
    for (const ChunkId& id : ids) {
      const ChunkEntry* entry = table_.Find(id);
      if (entry == nullptr) return Unknown(id);
      if (entry->quarantined) return Quarantined(id);
    }
    bool waiting = false;
    for (const ChunkId& id : ids) {
      ChunkEntry* entry = table_.Find(id);
      if (entry->durable) continue;
      // A record must not be written while the deletion of an older one is under way: the deletion
      // might come last.
      if (entry->persisting || table_.IsBeingDeleted(id)) {
        waiting = true;
        continue;
      }
      SEMSHARE_CHECK(entry->place == ChunkPlace::kResident);
      entry->persisting = true;
      entry->on_disk = true;
      writes->push_back(TransferOf(*entry));
    }
    if (!writes->empty() || !waiting) return absl::OkStatus();
    changed_.Wait(&mutex_);
  }
}

void ChunkStoreImpl::FinishWrites(absl::Span<const ChunkTransfer> writes, bool durable) {
  const MutexLock lock(&mutex_);
  for (const ChunkTransfer& write : writes) {
    ChunkEntry* entry = table_.Find(write.record.id);
    {
      const ChunkEdit edit(&table_, entry);
      edit->persisting = false;
      edit->durable = durable;
    }
    table_.ForgetIfUnused(entry);
  }
  changed_.NotifyAll();
}

absl::Status ChunkStoreImpl::Persist(absl::Span<const ChunkId> ids) {
  std::vector<ChunkId> left(ids.begin(), ids.end());
  while (true) {
    std::vector<ChunkTransfer> writes;
    SEMSHARE_RETURN_IF_ERROR(TakeWrites(left, &writes));
    if (writes.empty()) return absl::OkStatus();
    absl::Status status = io_->Write(writes);
    if (status.ok()) status = disk_->FlushChunks();
    FinishWrites(writes, status.ok());
    SEMSHARE_RETURN_IF_ERROR(status);
    // What this call wrote may be forgotten from now on; only what others write is still waited
    // for.
    absl::flat_hash_set<ChunkId> written;
    for (const ChunkTransfer& write : writes) written.insert(write.record.id);
    left.erase(std::remove_if(left.begin(), left.end(),
                              [&](const ChunkId& id) { return written.contains(id); }),
               left.end());
  }
}

// ---- Pinning and loading --------------------------------------------------------------------

ChunkPin ChunkStoreImpl::AddPinLocked(ChunkEntry* entry) {
  ChunkEdit edit(&table_, entry);
  ++edit->pins;
  edit.Touch();
  return MakePin(this, entry->meta.id, entry->offset);
}

// Pins what is resident; says whether something is left that another call loads.
absl::StatusOr<bool> ChunkStoreImpl::PinResidentLocked(absl::Span<const ChunkId> ids,
                                                       std::vector<ChunkPin>* pins) {
  // Neither the table nor its entries are likely to be cached: many are asked for at once.
  constexpr size_t kAhead = 8;
  std::vector<ChunkEntry*> entries(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i + kAhead < ids.size()) table_.Prefetch(ids[i + kAhead]);
    entries[i] = table_.Find(ids[i]);
    __builtin_prefetch(entries[i]);
  }
  bool loading = false;
  for (size_t i = 0; i < ids.size(); ++i) {
    ChunkPin& pin = (*pins)[i];
    if (!pin.id().empty()) continue;
    ChunkEntry* const entry = entries[i];
    if (entry == nullptr) return Unknown(ids[i]);
    if (entry->quarantined) return Quarantined(ids[i]);
    if (entry->place == ChunkPlace::kResident) pin = AddPinLocked(entry);
    if (entry->place == ChunkPlace::kLoading) loading = true;
  }
  return loading;
}

absl::Status ChunkStoreImpl::StartLoadsLocked(absl::Span<const ChunkId> ids,
                                              absl::Span<const ChunkPin> pins,
                                              std::vector<Load>* loads) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!pins[i].id().empty()) continue;
    ChunkEntry* entry = table_.Find(ids[i]);
    if (entry->place != ChunkPlace::kAbsent) continue;
    const std::optional<int64_t> offset = table_.Allocate(entry->meta.bytes);
    if (!offset.has_value()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no room to load chunk ", ids[i].ToHex(), " of ", entry->meta.bytes,
                       " bytes: everything in the arena is pinned or not on disk yet"));
    }
    const ChunkEdit edit(&table_, entry);
    edit->place = ChunkPlace::kLoading;
    edit->offset = *offset;
    loads->push_back({i, TransferOf(*entry)});
  }
  return absl::OkStatus();
}

// Pins what is resident and takes on loading what is absent. Waits while all that is left to do is
// done by others. No loads: all are pinned. After an error too the caller must finish `loads`.
//
// A caller loads what it took on before it waits for anybody, so calls can not wait in a circle.
absl::Status ChunkStoreImpl::TakePins(absl::Span<const ChunkId> ids, std::vector<ChunkPin>* pins,
                                      std::vector<Load>* loads) {
  const MutexLock lock(&mutex_);
  while (true) {
    // Resident ones first: making room for the others must not evict them.
    SEMSHARE_ASSIGN_OR_RETURN(const bool loading, PinResidentLocked(ids, pins));
    SEMSHARE_RETURN_IF_ERROR(StartLoadsLocked(ids, *pins, loads));
    if (!loads->empty() || !loading) return absl::OkStatus();
    changed_.Wait(&mutex_);
  }
}

void ChunkStoreImpl::FinishLoads(absl::Span<const Load> loads,
                                 absl::Span<const absl::Status> statuses,
                                 std::vector<ChunkPin>* pins) {
  const MutexLock lock(&mutex_);
  for (size_t i = 0; i < loads.size(); ++i) {
    ChunkEntry* entry = table_.Find(loads[i].transfer.record.id);
    if (statuses[i].ok()) {
      {
        const ChunkEdit edit(&table_, entry);
        edit->place = ChunkPlace::kResident;
      }
      ++table_.loaded_chunks;
      (*pins)[loads[i].index] = AddPinLocked(entry);
      continue;
    }
    {
      const ChunkEdit edit(&table_, entry);
      table_.Free(entry->offset);
      edit->place = ChunkPlace::kAbsent;
      // A record that should be there and is not is lost data as well.
      if (absl::IsDataLoss(statuses[i]) || absl::IsNotFound(statuses[i])) {
        edit->quarantined = true;
        edit->durable = false;
        ++table_.quarantined_chunks;
      }
    }
    table_.ForgetIfUnused(entry);
  }
  changed_.NotifyAll();
}

absl::StatusOr<std::vector<ChunkPin>> ChunkStoreImpl::PinAll(absl::Span<const ChunkId> ids) {
  std::vector<ChunkPin> pins(ids.size());
  while (true) {
    std::vector<Load> loads;
    const absl::Status taken = TakePins(ids, &pins, &loads);
    if (taken.ok() && loads.empty()) return pins;
    std::vector<absl::Status> statuses(loads.size(), absl::CancelledError());
    if (taken.ok()) {
      std::vector<ChunkTransfer> transfers;
      for (const Load& load : loads) transfers.push_back(load.transfer);
      statuses = io_->Read(transfers);
    }
    FinishLoads(loads, statuses, &pins);
    SEMSHARE_RETURN_IF_ERROR(taken);
    for (size_t i = 0; i < loads.size(); ++i) {
      if (absl::IsNotFound(statuses[i])) return Quarantined(loads[i].transfer.record.id);
      SEMSHARE_RETURN_IF_ERROR(statuses[i]);
    }
  }
}

}  // namespace semshare
