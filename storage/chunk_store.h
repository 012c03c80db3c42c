// ChunkStore: all chunks of all models, each in the device arena, on disk, or both.
//
// Life of a chunk: Reserve gives a ChunkDraft (memory, invisible); Publish makes it known and gives
// a ChunkRef; Persist writes it to disk; from then on its copy in memory may be dropped when room
// is needed, least valuable first (priority, then recency), and PinAll brings it back. A chunk is
// forgotten, in memory and on disk, when its last ChunkRef is gone.
//
// Two handles, both move-only RAII:
//   ChunkRef  keeps the chunk known. Held by a reference's catalog entry and by open uploads.
//   ChunkPin  keeps the chunk's bytes where they are in the arena. Held by leases and transfers.
// A pin must be released only after the last Event that reads the chunk.
//
// Thread-safe. Handles must not outlive the store. No disk or device work is done under its lock.
#ifndef SEMSHARE_STORAGE_CHUNK_STORE_H_
#define SEMSHARE_STORAGE_CHUNK_STORE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "storage/disk_tier.h"
#include "storage/ids.h"
#include "storage/kv_layout.h"

namespace semshare {

class ChunkStore;

// What a chunk is, besides its bytes. `parent` is empty for the first chunk of a prompt.
struct ChunkMeta {
  ChunkId id;
  ChunkId parent;
  NamespaceId ns;
  std::vector<uint32_t> token_ids;  // 1..kChunkTokens
  std::vector<ContentTag> tags;     // relative to the chunk's first token
  int64_t bytes = 0;                // KvLayout::chunk_bytes()
  int priority = 0;                 // 0..255, higher stays longer
};

// The metas of a prompt's chunks, in order: the ids of MakeChunkChain, each with its parent, its
// token ids and the tags that touch it. Adopt and FindAll compare with what this makes.
std::vector<ChunkMeta> MakeChunkMetas(NamespaceId ns, absl::Span<const uint32_t> token_ids,
                                      absl::Span<const ContentTag> tags, int64_t chunk_bytes,
                                      int priority);

// Keeps a chunk known.
class ChunkRef {
 public:
  ChunkRef() = default;
  ChunkRef(ChunkRef&& other) noexcept;
  ChunkRef& operator=(ChunkRef&& other) noexcept;
  ~ChunkRef();

  const ChunkId& id() const { return id_; }

 private:
  friend class ChunkStore;
  ChunkRef(ChunkStore* store, ChunkId id) : store_(store), id_(id) {}
  ChunkStore* store_ = nullptr;
  ChunkId id_;
};

// Keeps a chunk's bytes in the arena.
class ChunkPin {
 public:
  ChunkPin() = default;
  ChunkPin(ChunkPin&& other) noexcept;
  ChunkPin& operator=(ChunkPin&& other) noexcept;
  ~ChunkPin();

  const ChunkId& id() const { return id_; }
  // Bytes from the start of ChunkStore::arena().
  int64_t offset() const { return offset_; }

 private:
  friend class ChunkStore;
  ChunkPin(ChunkStore* store, ChunkId id, int64_t offset)
      : store_(store), id_(id), offset_(offset) {}
  ChunkStore* store_ = nullptr;
  ChunkId id_;
  int64_t offset_ = 0;
};

// Arena memory for a chunk that nobody else can see yet. Given back when dropped.
class ChunkDraft {
 public:
  ChunkDraft() = default;
  ChunkDraft(ChunkDraft&& other) noexcept;
  ChunkDraft& operator=(ChunkDraft&& other) noexcept;
  ~ChunkDraft();

  const ChunkMeta& meta() const { return meta_; }
  int64_t offset() const { return offset_; }

 private:
  friend class ChunkStore;
  ChunkStore* store_ = nullptr;
  ChunkMeta meta_;
  int64_t offset_ = 0;
};

struct ChunkStoreOptions {
  // Size of the device arena; at least one superblock of 32 MiB. All of it is taken at start.
  int64_t device_memory_bytes = int64_t{1} << 30;
  // Above this share of the arena TrimToWatermark drops copies that are on disk.
  double high_watermark = 0.9;
  // Host staging between arena and disk, taken at start; at least kMaxChunkBytes.
  int64_t staging_bytes = int64_t{64} << 20;
  // How long a load or a write waits for a free lane before it fails with RESOURCE_EXHAUSTED.
  int64_t lane_timeout_ms = 10000;
  absl::Status Validate() const;
};

struct ChunkStoreStats {
  int64_t chunks = 0;
  int64_t chunks_resident = 0;
  int64_t chunks_durable = 0;
  int64_t chunks_pinned = 0;
  int64_t device_bytes_used = 0;  // by chunks and drafts, padding of size classes included
  int64_t device_bytes_total = 0;
  int64_t evicted_chunks = 0;      // copies dropped, since start
  int64_t loaded_chunks = 0;       // from disk, since start
  int64_t quarantined_chunks = 0;  // bad records met, since start
};

struct ChunkState {
  bool resident = false;
  bool durable = false;
  bool quarantined = false;  // its record was bad
  int references = 0;        // ChunkRefs
  int64_t bytes = 0;
};

class ChunkStore {
 public:
  // `backend` and `disk` must outlive the store.
  static absl::StatusOr<std::unique_ptr<ChunkStore>> Create(const ChunkStoreOptions& options,
                                                            Backend* backend, DiskTier* disk);
  virtual ~ChunkStore() = default;

  // The device arena, for EnqueueRealign and EnqueueCopy at the offsets of pins and drafts.
  virtual MemorySpan arena() const = 0;

  // Refs to those chunks that are known, with the same token ids, parent and tags, and not
  // quarantined; an empty ChunkRef (id().empty()) for each other one. One per meta, in order.
  virtual std::vector<ChunkRef> FindAll(absl::Span<const ChunkMeta> metas) = 0;

  // Makes a chunk known that is on disk already (start-up). It is not resident. Adds a ref if it is
  // known. ALREADY_EXISTS if the id is known with other ids, parent or tags.
  virtual absl::StatusOr<ChunkRef> Adopt(const ChunkMeta& meta) = 0;

  // Takes arena memory, zeroed where rows may stay unwritten (a short chunk), dropping durable
  // unpinned copies where needed. RESOURCE_EXHAUSTED if nothing can be dropped; INVALID_ARGUMENT if
  // meta breaks a limit.
  virtual absl::StatusOr<ChunkDraft> Reserve(ChunkMeta meta) = 0;

  // Makes drafts known, all of them. REQUIRES: the work that fills them is done. A chunk that
  // another upload published meanwhile wins and the draft's bytes are dropped. ALREADY_EXISTS (and
  // nothing published) if an id is known with other ids, parent or tags: a hash collision. Refs in
  // the order of the drafts.
  virtual absl::StatusOr<std::vector<ChunkRef>> Publish(std::vector<ChunkDraft> drafts) = 0;

  // Writes those chunks to disk that are not there yet and syncs them. On return all are durable.
  virtual absl::Status Persist(absl::Span<const ChunkId> ids) = 0;

  // Pins chunks, loading from disk what is not resident; every load is verified. All or none.
  // NOT_FOUND: not known. DATA_LOSS: a record is bad; the chunk is quarantined from then on
  // (FindAll no longer returns it, and a new Publish replaces it). RESOURCE_EXHAUSTED: no room.
  virtual absl::StatusOr<std::vector<ChunkPin>> PinAll(absl::Span<const ChunkId> ids) = 0;

  // Drops durable, unpinned copies until the arena is below the high watermark.
  virtual void TrimToWatermark() = 0;

  // Deletes from disk what was forgotten since the last call. Called from maintenance, not from
  // request threads.
  virtual absl::Status CollectGarbage() = 0;

  // Deletes chunks on disk that are not known: what a crash left behind. Called once, after Adopt.
  // Returns how many.
  virtual absl::StatusOr<int64_t> SweepOrphans() = 0;

  virtual ChunkState Describe(const ChunkId& id) const = 0;
  virtual ChunkStoreStats stats() const = 0;

 protected:
  friend class ChunkRef;
  friend class ChunkPin;
  friend class ChunkDraft;
  ChunkStore() = default;
  // How the handles of the store are made and undone; for the implementation and the handles only.
  static ChunkRef MakeRef(ChunkStore* store, ChunkId id) { return ChunkRef(store, id); }
  static ChunkPin MakePin(ChunkStore* store, ChunkId id, int64_t offset) {
    return ChunkPin(store, id, offset);
  }
  static ChunkDraft MakeDraft(ChunkStore* store, ChunkMeta meta, int64_t offset);
  // Takes the memory out of a draft, which then gives nothing back. REQUIRES: it is `store`'s.
  static int64_t TakeDraft(ChunkStore* store, ChunkDraft* draft);
  virtual void DropRef(const ChunkId& id) = 0;
  virtual void DropPin(const ChunkId& id) = 0;
  virtual void DropDraft(const ChunkDraft& draft) = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_CHUNK_STORE_H_
