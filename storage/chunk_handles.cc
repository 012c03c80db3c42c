// The handles of a ChunkStore, its options and the metas of a prompt: what chunk_store.h declares
// beside the store itself.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "storage/arena.h"
#include "storage/chunk_store.h"

namespace semshare {

ChunkRef::ChunkRef(ChunkRef&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), id_(std::exchange(other.id_, ChunkId())) {}

ChunkRef& ChunkRef::operator=(ChunkRef&& other) noexcept {
  ChunkRef taken(std::move(other));
  std::swap(store_, taken.store_);
  std::swap(id_, taken.id_);
  return *this;
}

ChunkRef::~ChunkRef() {
  if (store_ != nullptr) store_->DropRef(id_);
}

ChunkPin::ChunkPin(ChunkPin&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      id_(std::exchange(other.id_, ChunkId())),
      offset_(other.offset_) {}

ChunkPin& ChunkPin::operator=(ChunkPin&& other) noexcept {
  ChunkPin taken(std::move(other));
  std::swap(store_, taken.store_);
  std::swap(id_, taken.id_);
  std::swap(offset_, taken.offset_);
  return *this;
}

ChunkPin::~ChunkPin() {
  if (store_ != nullptr) store_->DropPin(id_);
}

ChunkDraft::ChunkDraft(ChunkDraft&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      meta_(std::move(other.meta_)),
      offset_(other.offset_) {}

ChunkDraft& ChunkDraft::operator=(ChunkDraft&& other) noexcept {
  ChunkDraft taken(std::move(other));
  std::swap(store_, taken.store_);
  std::swap(meta_, taken.meta_);
  std::swap(offset_, taken.offset_);
  return *this;
}

ChunkDraft::~ChunkDraft() {
  if (store_ != nullptr) store_->DropDraft(*this);
}

ChunkDraft ChunkStore::MakeDraft(ChunkStore* store, ChunkMeta meta, int64_t offset) {
  ChunkDraft draft;
  draft.store_ = store;
  draft.meta_ = std::move(meta);
  draft.offset_ = offset;
  return draft;
}

int64_t ChunkStore::TakeDraft(ChunkStore* store, ChunkDraft* draft) {
  SEMSHARE_CHECK(draft->store_ == store);
  draft->store_ = nullptr;
  return draft->offset_;
}

absl::Status ChunkStoreOptions::Validate() const {
  if (device_memory_bytes < kSuperblockBytes) {
    return absl::InvalidArgumentError(absl::StrCat("device_memory_bytes must be at least ",
                                                   kSuperblockBytes, ", is ", device_memory_bytes));
  }
  if (!(high_watermark > 0.0 && high_watermark <= 1.0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("high_watermark must be in (0, 1], is ", high_watermark));
  }
  if (staging_bytes < kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging_bytes must be at least ", kMaxChunkBytes, ", is ", staging_bytes));
  }
  if (lane_timeout_ms <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("lane_timeout_ms must be positive, is ", lane_timeout_ms));
  }
  return absl::OkStatus();
}

std::vector<ChunkMeta> MakeChunkMetas(NamespaceId ns, absl::Span<const uint32_t> token_ids,
                                      absl::Span<const ContentTag> tags, int64_t chunk_bytes,
                                      int priority) {
  std::vector<ChunkMeta> metas;
  ChunkId parent;
  int64_t begin = 0;
  for (const ChunkId& id : MakeChunkChain(ns, token_ids, tags)) {
    ChunkMeta meta;
    meta.id = id;
    meta.parent = parent;
    meta.ns = ns;
    const auto tokens =
        token_ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(kChunkTokens));
    meta.token_ids.assign(tokens.begin(), tokens.end());
    const int64_t end = begin + static_cast<int64_t>(tokens.size());
    for (const ContentTag& tag : tags) {
      if (tag.end <= begin || tag.begin >= end) continue;
      meta.tags.push_back({tag.begin - begin, tag.end - begin, tag.digest});
    }
    meta.bytes = chunk_bytes;
    meta.priority = priority;
    metas.push_back(std::move(meta));
    parent = id;
    begin = end;
  }
  return metas;
}

}  // namespace semshare
