// ChunkStoreImpl: the ChunkStore. Internal to storage/.
//
// Three parts: ChunkTable knows what there is and is guarded by the lock, ChunkIo moves bytes and
// has no lock, and this class decides under the lock, acts outside and publishes under the lock.
// While it acts, a mark on the entry keeps others away: `kLoading` for a load, `persisting` for a
// write, and the set of ids being deleted for a deletion. Who meets a mark waits for `changed_`.
// chunk_store.cc has what makes chunks known and forgets them, chunk_transfers.cc what moves bytes.
//
// Thread-safe.
#ifndef SEMSHARE_STORAGE_CHUNK_STORE_IMPL_H_
#define SEMSHARE_STORAGE_CHUNK_STORE_IMPL_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/base/mutex.h"
#include "storage/chunk_io.h"
#include "storage/chunk_store.h"
#include "storage/chunk_table.h"

namespace semshare {

class ChunkStoreImpl final : public ChunkStore {
 public:
  ChunkStoreImpl(const ChunkStoreOptions& options, std::unique_ptr<ChunkIo> io, DiskTier* disk)
      : disk_(disk),
        io_(std::move(io)),
        watermark_bytes_(
            static_cast<int64_t>(options.high_watermark * static_cast<double>(io_->arena().bytes))),
        table_(io_->arena().bytes / kSuperblockBytes) {}

  MemorySpan arena() const override { return io_->arena(); }
  std::vector<ChunkRef> FindAll(absl::Span<const ChunkMeta> metas) override;
  absl::StatusOr<ChunkRef> Adopt(const ChunkMeta& meta) override;
  absl::StatusOr<ChunkDraft> Reserve(ChunkMeta meta) override;
  absl::StatusOr<std::vector<ChunkRef>> Publish(std::vector<ChunkDraft> drafts) override;
  absl::Status Persist(absl::Span<const ChunkId> ids) override;
  absl::StatusOr<std::vector<ChunkPin>> PinAll(absl::Span<const ChunkId> ids) override;
  void TrimToWatermark() override;
  absl::Status CollectGarbage() override;
  absl::StatusOr<int64_t> SweepOrphans() override;
  ChunkState Describe(const ChunkId& id) const override;
  ChunkStoreStats stats() const override;

 protected:
  void DropRef(const ChunkId& id) override;
  void DropPin(const ChunkId& id) override;
  void DropDraft(const ChunkDraft& draft) override;

 private:
  // A chunk that this PinAll loads, for the pin at `index`.
  struct Load {
    size_t index = 0;
    ChunkTransfer transfer;
  };

  ChunkRef AddRefLocked(ChunkEntry* entry, int priority) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ChunkPin AddPinLocked(ChunkEntry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckDraftsLocked(absl::Span<const ChunkDraft> drafts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ChunkRef PublishLocked(ChunkDraft* draft) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<bool> PinResidentLocked(absl::Span<const ChunkId> ids, std::vector<ChunkPin>* pins)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status StartLoadsLocked(absl::Span<const ChunkId> ids, absl::Span<const ChunkPin> pins,
                                std::vector<Load>* loads) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakePins(absl::Span<const ChunkId> ids, std::vector<ChunkPin>* pins,
                        std::vector<Load>* loads);
  void FinishLoads(absl::Span<const Load> loads, absl::Span<const absl::Status> statuses,
                   std::vector<ChunkPin>* pins);
  absl::Status TakeWrites(absl::Span<const ChunkId> ids, std::vector<ChunkTransfer>* writes);
  void FinishWrites(absl::Span<const ChunkTransfer> writes, bool durable);
  absl::Status DeleteRecords(absl::Span<const ChunkId> ids);

  DiskTier* const disk_;
  const std::unique_ptr<ChunkIo> io_;
  const int64_t watermark_bytes_;

  mutable Mutex mutex_;
  // Signalled when a load, a write or a deletion has ended.
  CondVar changed_;
  ChunkTable table_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_CHUNK_STORE_IMPL_H_
