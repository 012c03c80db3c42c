// ChunkIo: moves the bytes of chunks between the arena and the disk, through host staging, with
// their records made and verified. Internal to storage/.
//
// Thread-safe, and without any knowledge of which chunks there are: callers see to it that nobody
// else writes to the runs that they name. Calls block on device and disk. ChunkIo owns arena and
// staging; backend and disk must outlive it.
#ifndef SEMSHARE_STORAGE_CHUNK_IO_H_
#define SEMSHARE_STORAGE_CHUNK_IO_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "storage/chunk_store.h"
#include "storage/disk_tier.h"
#include "storage/record.h"
#include "storage/staging.h"

namespace semshare {

// A chunk and its run of the arena.
struct ChunkTransfer {
  RecordInfo record;
  int64_t offset = 0;
};

class ChunkIo {
 public:
  // Takes arena and staging.
  static absl::StatusOr<std::unique_ptr<ChunkIo>> Create(const ChunkStoreOptions& options,
                                                         Backend* backend, DiskTier* disk);

  MemorySpan arena() const { return arena_.span(); }

  // Puts the records of chunks on disk; DiskTier::FlushChunks makes them durable.
  absl::Status Write(absl::Span<const ChunkTransfer> chunks);

  // Fills the runs of chunks from their records. One status per chunk: NOT_FOUND or DATA_LOSS for
  // a record that is not there or bad; its run then has arbitrary bytes.
  std::vector<absl::Status> Read(absl::Span<const ChunkTransfer> chunks);

  // Zeroes a range of the arena.
  absl::Status Zero(int64_t offset, int64_t bytes);

 private:
  struct Copy {
    MemorySpan destination;
    MemorySpan source;
  };

  ChunkIo(const ChunkStoreOptions& options, Backend* backend, DiskTier* disk, Buffer arena,
          Buffer staging, Buffer zeros);

  // Runs copies on a lane and waits for all of them, whatever fails.
  absl::Status RunCopies(absl::Span<const Copy> copies);
  // Chunks from `begin` on that share one range of staging; sets the range's size.
  size_t GroupEnd(absl::Span<const ChunkTransfer> chunks, size_t begin, int64_t* bytes) const;
  absl::Status WriteGroup(absl::Span<const ChunkTransfer> chunks, int64_t staging_bytes);
  void ReadGroup(absl::Span<const ChunkTransfer> chunks, int64_t staging_bytes,
                 absl::Span<absl::Status> statuses);

  Backend* const backend_;
  DiskTier* const disk_;
  const absl::Duration lane_timeout_;
  const Buffer arena_;
  const Buffer staging_memory_;
  const Buffer zeros_;
  DiskStaging staging_;
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_CHUNK_IO_H_
