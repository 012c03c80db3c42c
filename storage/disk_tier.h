// DiskTier: what survives a restart. Three tables of byte strings; RocksDB implements it, and a
// fake in memory for tests.
//
// Thread-safe. Calls block on the disk: never call one while holding a lock.
#ifndef SEMSHARE_STORAGE_DISK_TIER_H_
#define SEMSHARE_STORAGE_DISK_TIER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace semshare {

enum class DiskTable { kModels, kCatalog, kChunks };

struct DiskEntry {
  std::string key;
  std::string_view value;  // the caller's, valid during the call
};

class DiskTier {
 public:
  virtual ~DiskTier() = default;

  // Writes all entries or none. kModels and kCatalog: durable on return (synced log). kChunks:
  // written without a log; durable after the next FlushChunks.
  // UNAVAILABLE if the disk fails.
  virtual absl::Status Put(DiskTable table, absl::Span<const DiskEntry> entries) = 0;

  // Makes every kChunks entry of Put calls that have returned durable. Concurrent calls are
  // grouped.
  virtual absl::Status FlushChunks() = 0;

  // Calls `use` with the value, valid during the call only. NOT_FOUND if there is none, DATA_LOSS
  // if the store's own checksum fails.
  virtual absl::Status Get(DiskTable table, std::string_view key,
                           const std::function<absl::Status(std::string_view)>& use) = 0;

  // Deletes keys; keys that are not there are no error. Durable as Put is; deletions of kChunks may
  // come back after a crash.
  virtual absl::Status Delete(DiskTable table, absl::Span<const std::string> keys) = 0;

  // Visits keys that start with `prefix`, ascending; `visit` returns false to stop. Values of
  // kChunks are not read: an empty view is passed.
  virtual absl::Status Scan(
      DiskTable table, std::string_view prefix,
      const std::function<bool(std::string_view key, std::string_view value)>& visit) = 0;

  // Bytes of live files.
  virtual int64_t BytesUsed() = 0;
};

struct RocksDbTierOptions {
  std::string path;
  // Bytes of the write buffer of kChunks before RocksDB flushes by itself.
  int64_t write_buffer_bytes = int64_t{64} << 20;
  int64_t block_cache_bytes = int64_t{32} << 20;
  // A table's deleted values take room until they are this many bytes, and more than what lives
  // beside them.
  int64_t least_garbage_bytes = int64_t{64} << 20;
  int background_jobs = 2;
  absl::Status Validate() const;
};

// Opens or creates the store. Only one process may have it open. UNAVAILABLE if it can't be opened.
absl::StatusOr<std::unique_ptr<DiskTier>> NewRocksDbTier(const RocksDbTierOptions& options);

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_DISK_TIER_H_
