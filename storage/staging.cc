#include "storage/staging.h"

#include <iterator>

#include "kernels/base/status_macros.h"

namespace semshare {

StagingRange::~StagingRange() {
  if (pool_ != nullptr) pool_->GiveBack(offset_, span_.bytes);
}

DiskStaging::DiskStaging(MemorySpan memory) : memory_(memory) {
  SEMSHARE_CHECK(memory.kind == MemoryKind::kHost && memory.bytes > 0);
  const MutexLock lock(&mutex_);
  free_[0] = memory.bytes;
}

bool DiskStaging::TryTake(int64_t bytes, int64_t* offset) {
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < bytes) continue;
    *offset = it->first;
    const int64_t rest = it->second - bytes;
    free_.erase(it);
    if (rest > 0) free_[*offset + bytes] = rest;
    return true;
  }
  return false;
}

StagingRange DiskStaging::Acquire(int64_t bytes) {
  SEMSHARE_CHECK(bytes > 0 && bytes <= memory_.bytes);
  int64_t taken = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (taken > memory_.bytes) taken = memory_.bytes;
  const MutexLock lock(&mutex_);
  const uint64_t ticket = next_ticket_++;
  int64_t offset = 0;
  while (ticket != serving_ || !TryTake(taken, &offset)) changed_.Wait(&mutex_);
  ++serving_;
  changed_.NotifyAll();
  return StagingRange(this, offset, memory_.Sub(offset, taken));
}

void DiskStaging::GiveBack(int64_t offset, int64_t bytes) {
  const MutexLock lock(&mutex_);
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && next->first == offset + bytes) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      offset = previous->first;
      bytes += previous->second;
    }
  }
  free_[offset] = bytes;
  changed_.NotifyAll();
}

}  // namespace semshare
