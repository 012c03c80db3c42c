// DiskTier over RocksDB: a column family for each table.
//
// kModels and kCatalog are written through RocksDB's log, synced. kChunks is written without a log,
// because a chunk's bytes should reach the disk once: they go from the write buffer to a blob file,
// and FlushChunks is what makes them durable. After a crash the log is replayed for the two tables
// that have one; chunks that were not flushed are gone. That is sound as long as a manifest is
// written only after FlushChunks returned for its chunks.
//
// Room of deleted values in blob files comes back by Collect, not by RocksDB's own collection,
// which comes with every compaction and moves each live value out of a fixed share of the oldest
// files, whether there is garbage in them or not. Keys are hashes, so that every compaction meets
// all of them, and a table would be rewritten by that share for every few flushes.
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/debug.h>
#include <rocksdb/write_batch.h>

#include <array>
#include <atomic>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "storage/disk_tier.h"
#include "storage/flush_group.h"
#include "storage/woken_thread.h"

namespace semshare {
namespace {

// Values below this size stay in the sorted files.
constexpr uint64_t kMinBlobBytes = 4096;
// Flushing kChunks starts a new log file whenever the log was used. Old ones can go only when the
// tables that use the log are flushed as well, so every so many flushes take those along.
constexpr int64_t kFlushesPerLogCleanup = 64;
// Versions of keys that Scan takes at a time from kChunks.
constexpr size_t kScanBatch = 16384;
constexpr int kMaxOpenFiles = 512;
// Files of values are gone through in this many parts, so that what is moved is never there twice
// as a whole.
constexpr int kCollectionParts = 4;
// RocksDB's types of key versions that mean that the key is not there (its dbformat.h, frozen).
constexpr int kTypeDeletion = 0;

constexpr std::array<const char*, 3> kTableNames = {"models", "catalog", "chunks"};

// The only place where a rocksdb::Status becomes an absl::Status.
absl::Status FromRocksDb(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = absl::StrCat(std::string(what), ": ", status.ToString());
  // An error with a severity came from background work and has stopped all writes.
  if (status.severity() != rocksdb::Status::kNoError) return absl::UnavailableError(message);
  if (status.IsNotFound()) return absl::NotFoundError(message);
  if (status.IsCorruption()) return absl::DataLossError(message);
  if (status.IsInvalidArgument()) return absl::InvalidArgumentError(message);
  if (status.IsNotSupported()) return absl::UnimplementedError(message);
  if (status.IsMemoryLimit()) return absl::ResourceExhaustedError(message);
  return absl::UnavailableError(message);
}

rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

rocksdb::DBOptions MakeDbOptions(const RocksDbTierOptions& options) {
  rocksdb::DBOptions db;
  db.create_if_missing = true;
  db.create_missing_column_families = true;
  db.paranoid_checks = true;
  db.max_background_jobs = options.background_jobs;
  db.max_open_files = kMaxOpenFiles;
  // The tables are flushed apart: kChunks has nothing in the log that others could depend on.
  db.atomic_flush = false;
  db.avoid_flush_during_recovery = true;
  // Compaction can wait; whoever reads or puts meanwhile does not wait for it. Flushes have another
  // pool. An unsupported platform keeps the priority.
  db.env->LowerThreadPoolCPUPriority(rocksdb::Env::LOW, rocksdb::CpuPriority::kLow)
      .PermitUncheckedError();
  // A damaged log stops the start instead of silently losing the manifests behind the damage; only
  // a half-written end, what a crash leaves, is tolerated.
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  db.keep_log_file_num = 4;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  return db;
}

rocksdb::ColumnFamilyOptions MakeTableOptions(const RocksDbTierOptions& options,
                                              const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions blocks;
  blocks.block_cache = cache;
  blocks.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  rocksdb::ColumnFamilyOptions table;
  table.table_factory.reset(rocksdb::NewBlockBasedTableFactory(blocks));
  table.paranoid_file_checks = true;
  table.write_buffer_size = static_cast<size_t>(options.write_buffer_bytes);
  // Keys are hashes and values are numbers: there is nothing to compress.
  table.compression = rocksdb::kNoCompression;
  table.enable_blob_files = true;
  table.min_blob_size = kMinBlobBytes;
  table.blob_compression_type = rocksdb::kNoCompression;
  table.enable_blob_garbage_collection = false;  // see the top
  return table;
}

class RocksDbTier final : public DiskTier {
 public:
  RocksDbTier(std::unique_ptr<rocksdb::DB> db, std::vector<rocksdb::ColumnFamilyHandle*> handles,
              const RocksDbTierOptions& options)
      : db_(std::move(db)),
        handles_(std::move(handles)),
        least_garbage_bytes_(static_cast<uint64_t>(options.least_garbage_bytes)),
        collector_(std::make_unique<WokenThread>(
            [this](std::atomic<bool>& stopping) { Collect(stopping); })) {}

  ~RocksDbTier() override {
    collector_ = nullptr;
    for (rocksdb::ColumnFamilyHandle* handle : handles_) {
      // Fails for handles that are not RocksDB's own only.
      db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
    }
    // Nothing is lost if this fails: what is durable is so already.
    db_->Close().PermitUncheckedError();
  }

  absl::Status Put(DiskTable table, absl::Span<const DiskEntry> entries) override {
    if (entries.empty()) return absl::OkStatus();
    rocksdb::WriteBatch batch;
    for (const DiskEntry& entry : entries) {
      SEMSHARE_RETURN_IF_ERROR(FromRocksDb(
          batch.Put(Handle(table), ToSlice(entry.key), ToSlice(entry.value)), What("put", table)));
    }
    return Write(table, &batch, "put");
  }

  absl::Status Delete(DiskTable table, absl::Span<const std::string> keys) override {
    if (keys.empty()) return absl::OkStatus();
    rocksdb::WriteBatch batch;
    for (const std::string& key : keys) {
      SEMSHARE_RETURN_IF_ERROR(
          FromRocksDb(batch.Delete(Handle(table), ToSlice(key)), What("delete", table)));
    }
    return Write(table, &batch, "delete");
  }

  absl::Status FlushChunks() override;

  absl::Status Get(DiskTable table, std::string_view key,
                   const std::function<absl::Status(std::string_view)>& use) override {
    rocksdb::PinnableSlice value;
    const rocksdb::Status status =
        db_->Get(rocksdb::ReadOptions(), Handle(table), ToSlice(key), &value);
    if (!status.ok()) return FromRocksDb(status, What("get", table));
    return use(ToView(value));
  }

  absl::Status Scan(DiskTable table, std::string_view prefix,
                    const std::function<bool(std::string_view, std::string_view)>& visit) override {
    return table == DiskTable::kChunks ? ScanKeys(table, prefix, visit)
                                       : ScanEntries(table, prefix, visit);
  }

  int64_t BytesUsed() override {
    uint64_t total = 0;
    for (rocksdb::ColumnFamilyHandle* handle : handles_) {
      for (const std::string& property : {rocksdb::DB::Properties::kLiveSstFilesSize,
                                          rocksdb::DB::Properties::kLiveBlobFileSize}) {
        uint64_t bytes = 0;
        if (db_->GetIntProperty(handle, property, &bytes)) total += bytes;
      }
    }
    return static_cast<int64_t>(total);
  }

 private:
  rocksdb::ColumnFamilyHandle* Handle(DiskTable table) const {
    return handles_[1 + static_cast<size_t>(table)];  // the first one is RocksDB's default
  }
  static std::string What(const char* operation, DiskTable table) {
    return absl::StrCat(operation, " in ", kTableNames[static_cast<size_t>(table)]);
  }

  absl::Status Write(DiskTable table, rocksdb::WriteBatch* batch, const char* operation) {
    rocksdb::WriteOptions options;
    options.disableWAL = table == DiskTable::kChunks;
    options.sync = !options.disableWAL;
    absl::Status status = FromRocksDb(db_->Write(options, batch), What(operation, table));
    // Damage that a write runs into is not damage of the data being written.
    if (absl::IsDataLoss(status)) return absl::UnavailableError(status.message());
    return status;
  }

  absl::Status ScanEntries(DiskTable table, std::string_view prefix,
                           const std::function<bool(std::string_view, std::string_view)>& visit);
  absl::Status ScanKeys(DiskTable table, std::string_view prefix,
                        const std::function<bool(std::string_view, std::string_view)>& visit);
  rocksdb::Status RunFlush(int64_t number);
  bool IsCollectionWorthwhile(rocksdb::ColumnFamilyHandle* table) const;
  void Collect(std::atomic<bool>& stopping);

  const std::unique_ptr<rocksdb::DB> db_;
  const std::vector<rocksdb::ColumnFamilyHandle*> handles_;

  const uint64_t least_garbage_bytes_;

  FlushGroup flushes_;
  std::unique_ptr<WokenThread> collector_;
};

rocksdb::Status RocksDbTier::RunFlush(int64_t number) {
  rocksdb::FlushOptions options;
  options.wait = true;
  options.allow_write_stall = true;
  std::vector<rocksdb::ColumnFamilyHandle*> tables = {Handle(DiskTable::kChunks)};
  if (number % kFlushesPerLogCleanup == 0) {
    tables.push_back(Handle(DiskTable::kCatalog));
    tables.push_back(Handle(DiskTable::kModels));
  }
  return db_->Flush(options, tables);
}

absl::Status RocksDbTier::FlushChunks() {
  return flushes_.Flush([this](int64_t number) {
    const absl::Status status = FromRocksDb(RunFlush(number), "flush of chunks");
    collector_->Wake();
    return absl::IsDataLoss(status) ? absl::UnavailableError(status.message()) : status;
  });
}

absl::Status RocksDbTier::ScanEntries(
    DiskTable table, std::string_view prefix,
    const std::function<bool(std::string_view, std::string_view)>& visit) {
  const std::unique_ptr<rocksdb::Iterator> it(
      db_->NewIterator(rocksdb::ReadOptions(), Handle(table)));
  for (it->Seek(ToSlice(prefix)); it->Valid() && it->key().starts_with(ToSlice(prefix));
       it->Next()) {
    if (!visit(ToView(it->key()), ToView(it->value()))) break;
  }
  return FromRocksDb(it->status(), What("scan", table));
}

// Whether garbage outweighs what lives: then about one byte is moved for each byte that comes back.
// RocksDB counts a value once a compaction has met its deletion.
bool RocksDbTier::IsCollectionWorthwhile(rocksdb::ColumnFamilyHandle* table) const {
  using Properties = rocksdb::DB::Properties;
  uint64_t bytes = 0;
  uint64_t garbage = 0;
  return db_->GetIntProperty(table, Properties::kLiveBlobFileSize, &bytes) &&
         db_->GetIntProperty(table, Properties::kLiveBlobFileGarbageSize, &garbage) &&
         garbage >= least_garbage_bytes_ && garbage > bytes / 2;
}

// Moves live values out of the oldest quarter of a table's files, and again while it is worthwhile,
// so that no file is gone through twice. An error that matters stops all writes, and whoever writes
// next gets it; any other leaves garbage to the next time.
void RocksDbTier::Collect(std::atomic<bool>& stopping) {
  rocksdb::CompactRangeOptions options;
  options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
  options.blob_garbage_collection_age_cutoff = 1.0 / kCollectionParts;
  // Values are reached through their keys, at whatever level these lie.
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  options.exclusive_manual_compaction = false;
  options.canceled = &stopping;
  for (rocksdb::ColumnFamilyHandle* const table : handles_) {
    rocksdb::Status status;
    for (int part = 0; part < kCollectionParts && status.ok() && !stopping; ++part) {
      if (!IsCollectionWorthwhile(table)) break;
      status = db_->CompactRange(options, table, nullptr, nullptr);
    }
    status.PermitUncheckedError();
  }
}

// An iterator reads the blob of every key that it passes, the whole store in the case of chunks.
// The listing of key versions does not: it gives the blob's place instead.
absl::Status RocksDbTier::ScanKeys(
    DiskTable table, std::string_view prefix,
    const std::function<bool(std::string_view, std::string_view)>& visit) {
  // Above every key: keys are hashes of 16 bytes.
  const std::string end(64, '\xff');
  std::string begin(prefix);
  std::string last;
  bool has_last = false;
  while (true) {
    std::vector<rocksdb::KeyVersion> versions;
    SEMSHARE_RETURN_IF_ERROR(
        FromRocksDb(rocksdb::GetAllKeyVersions(db_.get(), Handle(table), ToSlice(begin),
                                               ToSlice(end), kScanBatch, &versions),
                    What("scan", table)));
    for (const rocksdb::KeyVersion& version : versions) {
      // Newest first: the older versions of a key say nothing.
      if (has_last && version.user_key == last) continue;
      last = version.user_key;
      has_last = true;
      if (!ToSlice(last).starts_with(ToSlice(prefix))) return absl::OkStatus();
      if (version.type == kTypeDeletion) continue;
      if (!visit(last, {})) return absl::OkStatus();
    }
    if (versions.size() < kScanBatch) return absl::OkStatus();
    begin = last + '\0';
  }
}

}  // namespace

absl::Status RocksDbTierOptions::Validate() const {
  if (path.empty()) return absl::InvalidArgumentError("path is empty");
  if (write_buffer_bytes < (int64_t{1} << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("write_buffer_bytes must be at least 1 MiB, is ", write_buffer_bytes));
  }
  if (block_cache_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("block_cache_bytes must not be negative, is ", block_cache_bytes));
  }
  if (least_garbage_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("least_garbage_bytes must not be negative, is ", least_garbage_bytes));
  }
  if (background_jobs < 1 || background_jobs > 64) {
    return absl::InvalidArgumentError(
        absl::StrCat("background_jobs must be in 1..64, is ", background_jobs));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DiskTier>> NewRocksDbTier(const RocksDbTierOptions& options) {
  SEMSHARE_RETURN_IF_ERROR(options.Validate());
  const std::shared_ptr<rocksdb::Cache> cache =
      rocksdb::NewLRUCache(static_cast<size_t>(options.block_cache_bytes));
  const rocksdb::ColumnFamilyOptions table = MakeTableOptions(options, cache);
  std::vector<rocksdb::ColumnFamilyDescriptor> tables;
  tables.emplace_back(rocksdb::kDefaultColumnFamilyName, table);
  for (const char* name : kTableNames) tables.emplace_back(name, table);
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(MakeDbOptions(options), options.path, tables, &handles, &db);
  if (!status.ok()) {
    return absl::UnavailableError(
        FromRocksDb(status, absl::StrCat("open ", options.path)).message());
  }
  return std::make_unique<RocksDbTier>(std::unique_ptr<rocksdb::DB>(db), std::move(handles),
                                       options);
}

}  // namespace semshare
