// DiskStaging: ranges of one block of host memory, lent to transfers between arena and disk.
// Internal to storage/.
//
// Thread-safe. Requests are served in the order in which they came, so that a large one is not
// starved by small ones. The pool does not own the memory; ranges must not outlive the pool.
#ifndef SEMSHARE_STORAGE_STAGING_H_
#define SEMSHARE_STORAGE_STAGING_H_

#include <cstdint>
#include <map>
#include <utility>

#include "kernels/backend.h"
#include "kernels/base/mutex.h"

namespace semshare {

class DiskStaging;

// A range, given back when destroyed. Move-only.
class StagingRange {
 public:
  StagingRange(StagingRange&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), offset_(other.offset_), span_(other.span_) {}
  StagingRange& operator=(StagingRange&&) = delete;
  ~StagingRange();

  const MemorySpan& span() const { return span_; }

 private:
  friend class DiskStaging;
  StagingRange(DiskStaging* pool, int64_t offset, MemorySpan span)
      : pool_(pool), offset_(offset), span_(span) {}
  DiskStaging* pool_;
  int64_t offset_;
  MemorySpan span_;
};

class DiskStaging {
 public:
  static constexpr int64_t kAlignment = 256;

  // REQUIRES: `memory` is host memory, aligned to kAlignment, and outlives the pool.
  explicit DiskStaging(MemorySpan memory);

  // Waits until there is room. A caller holds at most one range at a time; two could wait for each
  // other. REQUIRES: 0 < bytes <= capacity.
  StagingRange Acquire(int64_t bytes);

  int64_t capacity() const { return memory_.bytes; }

 private:
  friend class StagingRange;
  bool TryTake(int64_t bytes, int64_t* offset) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBack(int64_t offset, int64_t bytes);

  const MemorySpan memory_;
  Mutex mutex_;
  CondVar changed_;
  std::map<int64_t, int64_t> free_ ABSL_GUARDED_BY(mutex_);  // offset -> bytes, never adjacent
  uint64_t next_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t serving_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_STAGING_H_
