// MemoryDiskTier: a DiskTier in memory, with faults and crashes on demand.
//
// Thread-safe. It owns copies of all bytes. It keeps them over Crash, so that a test reopens a
// store on the same tier.
#ifndef SEMSHARE_TESTS_TESTING_MEMORY_DISK_TIER_H_
#define SEMSHARE_TESTS_TESTING_MEMORY_DISK_TIER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/base/mutex.h"
#include "storage/disk_tier.h"

namespace semshare::testing {

enum class DiskOperation { kPut, kFlush, kGet, kDelete, kScan };

class MemoryDiskTier final : public DiskTier {
 public:
  // Called at the start of every operation, outside all locks; an error that it returns is the
  // operation's. A hook that blocks holds up its caller only.
  using Hook = std::function<absl::Status(DiskOperation, DiskTable)>;

  absl::Status Put(DiskTable table, absl::Span<const DiskEntry> entries) override;
  absl::Status FlushChunks() override;
  absl::Status Get(DiskTable table, std::string_view key,
                   const std::function<absl::Status(std::string_view)>& use) override;
  absl::Status Delete(DiskTable table, absl::Span<const std::string> keys) override;
  absl::Status Scan(DiskTable table, std::string_view prefix,
                    const std::function<bool(std::string_view, std::string_view)>& visit) override;
  int64_t BytesUsed() override;

  // Forgets what was not durable: changes of kChunks since the last FlushChunks.
  void Crash();

  void SetHook(Hook hook);
  // The nth operation from now on (1: the next one) fails with `status`, once.
  void FailCall(int64_t nth, absl::Status status);
  // Operations of a kind so far.
  int64_t calls(DiskOperation operation) const;

  // Changes one byte of a stored value by exclusive or. REQUIRES: the key is there.
  void Corrupt(DiskTable table, const std::string& key, size_t byte, uint8_t mask);
  // The value of a key, if there is one.
  std::optional<std::string> Value(DiskTable table, const std::string& key) const;
  int64_t size(DiskTable table) const;

 private:
  using Table = std::map<std::string, std::string, std::less<>>;

  absl::Status Begin(DiskOperation operation, DiskTable table);
  Table& TableLocked(DiskTable table) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return tables_[static_cast<size_t>(table)];
  }
  const Table& TableLocked(DiskTable table) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return tables_[static_cast<size_t>(table)];
  }

  mutable Mutex mutex_;
  Hook hook_ ABSL_GUARDED_BY(mutex_);
  std::array<Table, 3> tables_ ABSL_GUARDED_BY(mutex_);
  // What Crash restores of a key of kChunks: the flushed value, or none. `changed` is the number of
  // its last change; a flush covers the changes before it began.
  struct Unflushed {
    std::optional<std::string> value;
    int64_t changed = 0;
  };
  void RememberLocked(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::map<std::string, Unflushed> unflushed_ ABSL_GUARDED_BY(mutex_);
  int64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::array<int64_t, 5> calls_ ABSL_GUARDED_BY(mutex_) = {};
  int64_t fail_in_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: no failure ahead
  absl::Status fail_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace semshare::testing

#endif  // SEMSHARE_TESTS_TESTING_MEMORY_DISK_TIER_H_
