#include "tests/testing/memory_disk_tier.h"

#include <iterator>
#include <utility>
#include <vector>

#include "kernels/base/status_macros.h"

namespace semshare::testing {

absl::Status MemoryDiskTier::Begin(DiskOperation operation, DiskTable table) {
  Hook hook;
  {
    const MutexLock lock(&mutex_);
    ++calls_[static_cast<size_t>(operation)];
    if (fail_in_ > 0 && --fail_in_ == 0) return fail_status_;
    hook = hook_;
  }
  return hook ? hook(operation, table) : absl::OkStatus();
}

void MemoryDiskTier::RememberLocked(const std::string& key) {
  const Table& rows = TableLocked(DiskTable::kChunks);
  const auto it = rows.find(key);
  const auto [remembered, is_new] = unflushed_.try_emplace(key);
  if (is_new && it != rows.end()) remembered->second.value = it->second;
  remembered->second.changed = ++changes_;
}

absl::Status MemoryDiskTier::Put(DiskTable table, absl::Span<const DiskEntry> entries) {
  SEMSHARE_RETURN_IF_ERROR(Begin(DiskOperation::kPut, table));
  const MutexLock lock(&mutex_);
  Table& rows = TableLocked(table);
  for (const DiskEntry& entry : entries) {
    if (table == DiskTable::kChunks) RememberLocked(entry.key);
    rows[entry.key] = std::string(entry.value);
  }
  return absl::OkStatus();
}

absl::Status MemoryDiskTier::FlushChunks() {
  int64_t begun = 0;
  {
    const MutexLock lock(&mutex_);
    begun = changes_;
  }
  SEMSHARE_RETURN_IF_ERROR(Begin(DiskOperation::kFlush, DiskTable::kChunks));
  const MutexLock lock(&mutex_);
  for (auto it = unflushed_.begin(); it != unflushed_.end();) {
    it = it->second.changed <= begun ? unflushed_.erase(it) : std::next(it);
  }
  return absl::OkStatus();
}

absl::Status MemoryDiskTier::Get(DiskTable table, std::string_view key,
                                 const std::function<absl::Status(std::string_view)>& use) {
  SEMSHARE_RETURN_IF_ERROR(Begin(DiskOperation::kGet, table));
  std::string value;
  {
    const MutexLock lock(&mutex_);
    const Table& rows = TableLocked(table);
    const auto it = rows.find(key);
    if (it == rows.end()) return absl::NotFoundError("no such key");
    value = it->second;
  }
  return use(value);
}

absl::Status MemoryDiskTier::Delete(DiskTable table, absl::Span<const std::string> keys) {
  SEMSHARE_RETURN_IF_ERROR(Begin(DiskOperation::kDelete, table));
  const MutexLock lock(&mutex_);
  Table& rows = TableLocked(table);
  for (const std::string& key : keys) {
    const auto it = rows.find(key);
    if (it == rows.end()) continue;
    if (table == DiskTable::kChunks) RememberLocked(key);
    rows.erase(it);
  }
  return absl::OkStatus();
}

absl::Status MemoryDiskTier::Scan(
    DiskTable table, std::string_view prefix,
    const std::function<bool(std::string_view, std::string_view)>& visit) {
  SEMSHARE_RETURN_IF_ERROR(Begin(DiskOperation::kScan, table));
  std::vector<std::pair<std::string, std::string>> rows;
  {
    const MutexLock lock(&mutex_);
    const Table& all = TableLocked(table);
    for (auto it = all.lower_bound(prefix); it != all.end() && it->first.starts_with(prefix);
         ++it) {
      rows.emplace_back(it->first, table == DiskTable::kChunks ? "" : it->second);
    }
  }
  for (const auto& [key, value] : rows) {
    if (!visit(key, value)) break;
  }
  return absl::OkStatus();
}

int64_t MemoryDiskTier::BytesUsed() {
  const MutexLock lock(&mutex_);
  int64_t bytes = 0;
  for (const Table& rows : tables_) {
    for (const auto& [key, value] : rows) bytes += static_cast<int64_t>(key.size() + value.size());
  }
  return bytes;
}

void MemoryDiskTier::Crash() {
  const MutexLock lock(&mutex_);
  Table& rows = TableLocked(DiskTable::kChunks);
  for (auto& [key, unflushed] : unflushed_) {
    if (unflushed.value.has_value()) {
      rows[key] = *std::move(unflushed.value);
    } else {
      rows.erase(key);
    }
  }
  unflushed_.clear();
}

void MemoryDiskTier::SetHook(Hook hook) {
  const MutexLock lock(&mutex_);
  hook_ = std::move(hook);
}

void MemoryDiskTier::FailCall(int64_t nth, absl::Status status) {
  const MutexLock lock(&mutex_);
  fail_in_ = nth;
  fail_status_ = std::move(status);
}

int64_t MemoryDiskTier::calls(DiskOperation operation) const {
  const MutexLock lock(&mutex_);
  return calls_[static_cast<size_t>(operation)];
}

void MemoryDiskTier::Corrupt(DiskTable table, const std::string& key, size_t byte, uint8_t mask) {
  const MutexLock lock(&mutex_);
  const auto it = TableLocked(table).find(key);
  SEMSHARE_CHECK(it != TableLocked(table).end() && byte < it->second.size());
  it->second[byte] = static_cast<char>(static_cast<uint8_t>(it->second[byte]) ^ mask);
}

std::optional<std::string> MemoryDiskTier::Value(DiskTable table, const std::string& key) const {
  const MutexLock lock(&mutex_);
  const auto it = TableLocked(table).find(key);
  if (it == TableLocked(table).end()) return std::nullopt;
  return it->second;
}

int64_t MemoryDiskTier::size(DiskTable table) const {
  const MutexLock lock(&mutex_);
  return static_cast<int64_t>(TableLocked(table).size());
}

}  // namespace semshare::testing
