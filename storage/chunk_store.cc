#include "storage/chunk_store.h"

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "storage/chunk_store_impl.h"

namespace semshare {
namespace {

constexpr int kMaxPriority = 255;
// Keys of one deletion on disk.
constexpr size_t kDeleteBatch = 4096;

// Tags in one form: cut to the chunk and sorted, so that it does not matter how a caller cut them.
// The id tells apart what cutting makes equal.
void NormalizeTags(ChunkMeta* meta) {
  const auto tokens = static_cast<int64_t>(meta->token_ids.size());
  std::vector<ContentTag> tags;
  for (ContentTag& tag : meta->tags) {
    tag.begin = std::max<int64_t>(tag.begin, 0);
    tag.end = std::min(tag.end, tokens);
    if (tag.begin < tag.end) tags.push_back(std::move(tag));
  }
  std::sort(tags.begin(), tags.end(), [](const ContentTag& a, const ContentTag& b) {
    return std::tie(a.begin, a.end, a.digest) < std::tie(b.begin, b.end, b.digest);
  });
  meta->tags = std::move(tags);
}

// Whether an id stands for the same content. REQUIRES: both are normalized.
bool SameContent(const ChunkMeta& a, const ChunkMeta& b) {
  return a.parent == b.parent && a.ns == b.ns && a.bytes == b.bytes && a.token_ids == b.token_ids &&
         a.tags == b.tags;
}

absl::Status CheckMeta(const ChunkMeta& meta) {
  if (meta.id.empty()) return absl::InvalidArgumentError("id is empty");
  if (meta.token_ids.empty() || meta.token_ids.size() > static_cast<size_t>(kChunkTokens)) {
    return absl::InvalidArgumentError(absl::StrCat("token_ids: their number must be in 1..",
                                                   kChunkTokens, ", is ", meta.token_ids.size()));
  }
  if (meta.bytes <= 0 || meta.bytes > kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("bytes must be in 1..", kMaxChunkBytes, ", is ", meta.bytes));
  }
  if (meta.priority < 0 || meta.priority > kMaxPriority) {
    return absl::InvalidArgumentError(
        absl::StrCat("priority must be in 0..", kMaxPriority, ", is ", meta.priority));
  }
  return absl::OkStatus();
}

absl::Status Collision(const ChunkId& id) {
  return absl::AlreadyExistsError(
      absl::StrCat("chunk ", id.ToHex(), " is known with other content: a hash collision"));
}

}  // namespace

// ---- Making chunks known --------------------------------------------------------------------

ChunkRef ChunkStoreImpl::AddRefLocked(ChunkEntry* entry, int priority) {
  const ChunkEdit edit(&table_, entry);
  ++edit->references;
  // A chunk is worth what the most important reference to it is worth.
  edit->meta.priority = std::max(edit->meta.priority, priority);
  return MakeRef(this, entry->meta.id);
}

std::vector<ChunkRef> ChunkStoreImpl::FindAll(absl::Span<const ChunkMeta> metas) {
  std::vector<ChunkMeta> wanted(metas.begin(), metas.end());
  for (ChunkMeta& meta : wanted) NormalizeTags(&meta);
  std::vector<ChunkRef> refs(wanted.size());
  const MutexLock lock(&mutex_);
  for (size_t i = 0; i < wanted.size(); ++i) {
    ChunkEntry* entry = table_.Find(wanted[i].id);
    if (entry == nullptr || entry->quarantined || !SameContent(entry->meta, wanted[i])) continue;
    refs[i] = AddRefLocked(entry, wanted[i].priority);
  }
  return refs;
}

absl::StatusOr<ChunkRef> ChunkStoreImpl::Adopt(const ChunkMeta& meta) {
  SEMSHARE_RETURN_IF_ERROR(CheckMeta(meta));
  ChunkMeta normalized = meta;
  NormalizeTags(&normalized);
  const MutexLock lock(&mutex_);
  ChunkEntry* entry = table_.Find(meta.id);
  while (entry == nullptr && table_.IsBeingDeleted(meta.id)) {
    changed_.Wait(&mutex_);
    entry = table_.Find(meta.id);
  }
  if (entry == nullptr) {
    entry = table_.Insert(std::move(normalized));
    const ChunkEdit edit(&table_, entry);
    edit->durable = true;
    edit->on_disk = true;
  } else if (!SameContent(entry->meta, normalized)) {
    return Collision(meta.id);
  }
  return AddRefLocked(entry, meta.priority);
}

absl::StatusOr<ChunkDraft> ChunkStoreImpl::Reserve(ChunkMeta meta) {
  SEMSHARE_RETURN_IF_ERROR(CheckMeta(meta));
  NormalizeTags(&meta);
  std::optional<int64_t> offset;
  {
    const MutexLock lock(&mutex_);
    offset = table_.Allocate(meta.bytes);
  }
  if (!offset.has_value()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no room for chunk ", meta.id.ToHex(), " of ", meta.bytes,
                     " bytes: everything in the arena is pinned or not on disk yet"));
  }
  const int64_t bytes = meta.bytes;
  const bool is_short = meta.token_ids.size() < static_cast<size_t>(kChunkTokens);
  ChunkDraft draft = MakeDraft(this, std::move(meta), *offset);
  if (is_short) SEMSHARE_RETURN_IF_ERROR(io_->Zero(*offset, bytes));
  return draft;
}

absl::Status ChunkStoreImpl::CheckDraftsLocked(absl::Span<const ChunkDraft> drafts) {
  absl::flat_hash_map<ChunkId, const ChunkMeta*> own;
  for (const ChunkDraft& draft : drafts) {
    const ChunkMeta& meta = draft.meta();
    const ChunkEntry* entry = table_.Find(meta.id);
    if (entry != nullptr && !SameContent(entry->meta, meta)) return Collision(meta.id);
    const auto [it, is_new] = own.emplace(meta.id, &meta);
    if (!is_new && !SameContent(*it->second, meta)) return Collision(meta.id);
  }
  return absl::OkStatus();
}

ChunkRef ChunkStoreImpl::PublishLocked(ChunkDraft* draft) {
  const ChunkMeta& meta = draft->meta();
  const int64_t offset = TakeDraft(this, draft);
  ChunkEntry* entry = table_.Find(meta.id);
  if (entry != nullptr && !entry->quarantined) {
    table_.Free(offset);
    return AddRefLocked(entry, meta.priority);
  }
  if (entry == nullptr) entry = table_.Insert(meta);
  {
    ChunkEdit edit(&table_, entry);
    edit->quarantined = false;
    edit->durable = false;
    edit->place = ChunkPlace::kResident;
    edit->offset = offset;
    edit.Touch();
  }
  return AddRefLocked(entry, meta.priority);
}

absl::StatusOr<std::vector<ChunkRef>> ChunkStoreImpl::Publish(std::vector<ChunkDraft> drafts) {
  std::vector<ChunkRef> refs;
  refs.reserve(drafts.size());
  const MutexLock lock(&mutex_);
  // A load in progress may find a bad record; then the draft is what saves the chunk.
  const auto is_loading = [this](const ChunkDraft& draft) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const ChunkEntry* entry = table_.Find(draft.meta().id);
    return entry != nullptr && entry->place == ChunkPlace::kLoading;
  };
  for (size_t i = 0; i < drafts.size();) {
    if (is_loading(drafts[i])) {
      changed_.Wait(&mutex_);
      i = 0;
    } else {
      ++i;
    }
  }
  SEMSHARE_RETURN_IF_ERROR(CheckDraftsLocked(drafts));
  for (ChunkDraft& draft : drafts) refs.push_back(PublishLocked(&draft));
  return refs;
}

// ---- Forgetting -----------------------------------------------------------------------------

void ChunkStoreImpl::DropRef(const ChunkId& id) {
  const MutexLock lock(&mutex_);
  ChunkEntry* entry = table_.Find(id);
  --entry->references;
  table_.ForgetIfUnused(entry);
}

void ChunkStoreImpl::DropPin(const ChunkId& id) {
  const MutexLock lock(&mutex_);
  ChunkEntry* entry = table_.Find(id);
  {
    const ChunkEdit edit(&table_, entry);
    --edit->pins;
  }
  table_.ForgetIfUnused(entry);
}

void ChunkStoreImpl::DropDraft(const ChunkDraft& draft) {
  const MutexLock lock(&mutex_);
  table_.Free(draft.offset());
}

void ChunkStoreImpl::TrimToWatermark() {
  const MutexLock lock(&mutex_);
  table_.EvictDownTo(watermark_bytes_);
}

// Deletes the records of ids that are marked as being deleted, and ends that.
absl::Status ChunkStoreImpl::DeleteRecords(absl::Span<const ChunkId> ids) {
  absl::Status result;
  for (size_t begin = 0; begin < ids.size(); begin += kDeleteBatch) {
    const absl::Span<const ChunkId> batch = ids.subspan(begin, kDeleteBatch);
    std::vector<std::string> keys;
    for (const ChunkId& id : batch) keys.push_back(id.ToBytes());
    const absl::Status status =
        result.ok() ? disk_->Delete(DiskTable::kChunks, keys) : absl::CancelledError();
    result.Update(status);
    const MutexLock lock(&mutex_);
    table_.EndDelete(batch, status.ok());
    changed_.NotifyAll();
  }
  return result;
}

absl::Status ChunkStoreImpl::CollectGarbage() {
  std::vector<ChunkId> ids;
  {
    const MutexLock lock(&mutex_);
    ids = table_.BeginDeleteGarbage();
  }
  return DeleteRecords(ids);
}

absl::StatusOr<int64_t> ChunkStoreImpl::SweepOrphans() {
  std::vector<ChunkId> ids;
  std::vector<std::string> foreign_keys;
  SEMSHARE_RETURN_IF_ERROR(
      disk_->Scan(DiskTable::kChunks, "", [&](std::string_view key, std::string_view /*value*/) {
        if (key.size() == 16) {
          ids.push_back(ChunkId::FromBytes(key));
        } else {
          foreign_keys.emplace_back(key);
        }
        return true;
      }));
  {
    const MutexLock lock(&mutex_);
    ids = table_.BeginDeleteUnknown(ids);
  }
  SEMSHARE_RETURN_IF_ERROR(DeleteRecords(ids));
  if (!foreign_keys.empty()) {
    SEMSHARE_RETURN_IF_ERROR(disk_->Delete(DiskTable::kChunks, foreign_keys));
  }
  return static_cast<int64_t>(ids.size() + foreign_keys.size());
}

ChunkState ChunkStoreImpl::Describe(const ChunkId& id) const {
  const MutexLock lock(&mutex_);
  ChunkState state;
  const ChunkEntry* entry = table_.Find(id);
  if (entry == nullptr) return state;
  state.resident = entry->place == ChunkPlace::kResident;
  state.durable = entry->durable;
  state.quarantined = entry->quarantined;
  state.references = entry->references;
  state.bytes = entry->meta.bytes;
  return state;
}

ChunkStoreStats ChunkStoreImpl::stats() const {
  const MutexLock lock(&mutex_);
  return table_.stats();
}

absl::StatusOr<std::unique_ptr<ChunkStore>> ChunkStore::Create(const ChunkStoreOptions& options,
                                                               Backend* backend, DiskTier* disk) {
  SEMSHARE_RETURN_IF_ERROR(options.Validate());
  SEMSHARE_ASSIGN_OR_RETURN(std::unique_ptr<ChunkIo> io, ChunkIo::Create(options, backend, disk));
  return std::make_unique<ChunkStoreImpl>(options, std::move(io), disk);
}

}  // namespace semshare
