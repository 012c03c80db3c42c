#include "tests/testing/late_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {

void PeerEvent::SetHeld(bool held) {
  MutexLock lock(&mutex_);
  held_ = held;
  changed_.NotifyAll();
}

bool PeerEvent::held() const {
  MutexLock lock(&mutex_);
  return held_;
}

void PeerEvent::Wait() {
  MutexLock lock(&mutex_);
  ++waits_;
  while (held_) changed_.Wait(&mutex_);
  --waits_;
}

int64_t PeerEvent::waits() const {
  MutexLock lock(&mutex_);
  return waits_;
}

absl::StatusOr<Buffer> LateMemory::Allocate(int64_t bytes) {
  const int fd = memfd_create("late_backend", MFD_CLOEXEC);
  if (fd < 0) return absl::ResourceExhaustedError("memfd_create failed");
  absl::StatusOr<Buffer> buffer = absl::ResourceExhaustedError("ftruncate failed");
  if (ftruncate(fd, bytes) == 0) buffer = Map(fd, bytes, /*peers=*/false);
  close(fd);
  if (buffer.ok()) std::memset(Resolve(buffer->span()).host(), 0, static_cast<size_t>(bytes));
  return buffer;
}

absl::StatusOr<Buffer> LateMemory::Map(int fd, int64_t bytes, bool peers) {
  const size_t size = static_cast<size_t>(bytes);
  void* const device = mmap(nullptr, size, PROT_NONE, MAP_SHARED, fd, 0);
  void* const work = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (device == MAP_FAILED || work == MAP_FAILED) {
    if (device != MAP_FAILED) munmap(device, size);
    return absl::ResourceExhaustedError(absl::StrCat("cannot map ", bytes, " bytes"));
  }
  const MemorySpan span{reinterpret_cast<uintptr_t>(device), bytes, MemoryKind::kDevice};
  {
    MutexLock lock(&mutex_);
    ranges_[span.address] = Range{reinterpret_cast<uintptr_t>(work), bytes, peers};
  }
  return Buffer(span, [self = shared_from_this()](MemorySpan freed) { self->Free(freed); });
}

MemorySpan LateMemory::Resolve(const MemorySpan& span) const {
  const Place place = Find(span);
  SEMSHARE_CHECK(place.found);  // if not: memory was freed while work on it was pending
  SEMSHARE_CHECK(!place.peers || !event_->held());  // if not: the work did not wait for the peer
  return MemorySpan{place.work, span.bytes, MemoryKind::kHost};
}

LateMemory::Place LateMemory::Find(const MemorySpan& span) const {
  if (span.kind == MemoryKind::kHost || span.bytes == 0) return {true, span.address, false};
  if (span.bytes < 0) return {};
  MutexLock lock(&mutex_);
  auto range = ranges_.upper_bound(span.address);
  if (range == ranges_.begin()) return {};
  --range;
  const uintptr_t offset = span.address - range->first;
  const uintptr_t bytes = static_cast<uintptr_t>(range->second.bytes);
  if (offset > bytes || static_cast<uintptr_t>(span.bytes) > bytes - offset) return {};
  return {true, range->second.work + offset, range->second.peers};
}

void LateMemory::Free(const MemorySpan& span) {
  uintptr_t work = 0;
  {
    MutexLock lock(&mutex_);
    const auto range = ranges_.find(span.address);
    SEMSHARE_CHECK(range != ranges_.end());
    work = range->second.work;
    ranges_.erase(range);
  }
  munmap(reinterpret_cast<void*>(work), static_cast<size_t>(span.bytes));
  munmap(reinterpret_cast<void*>(span.address), static_cast<size_t>(span.bytes));
}

}  // namespace semshare
