// LateMemory: the device memory of a LateBackend. Each range is one memfd, mapped twice: where the
// host cannot touch it, and where operations do.
//
// Thread-safe. Buffers keep it alive.
#ifndef SEMSHARE_TESTS_TESTING_LATE_MEMORY_H_
#define SEMSHARE_TESTS_TESTING_LATE_MEMORY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"

namespace semshare {

// The interprocess event of every peer. Thread-safe.
class PeerEvent {
 public:
  void SetHeld(bool held);
  bool held() const;
  // Blocks while it is held.
  void Wait();
  // Threads that stand in Wait.
  int64_t waits() const;

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t waits_ ABSL_GUARDED_BY(mutex_) = 0;
};

class LateMemory : public std::enable_shared_from_this<LateMemory> {
 public:
  // REQUIRES: owned by a shared_ptr.
  explicit LateMemory(std::shared_ptr<const PeerEvent> event) : event_(std::move(event)) {}

  absl::StatusOr<Buffer> Allocate(int64_t bytes);

  // All `bytes` bytes of a file, which may be closed afterwards. `peers`: it is a peer's.
  absl::StatusOr<Buffer> Map(int fd, int64_t bytes, bool peers);

  // True if operations can use the span: host memory, empty, or inside one range.
  bool Contains(const MemorySpan& span) const { return Find(span).found; }

  // The span at addresses that operations can use. Stops the process for a device span that is not
  // mapped, or not any more, and for a peer's while its event is held.
  MemorySpan Resolve(const MemorySpan& span) const;

 private:
  struct Range {
    uintptr_t work = 0;
    int64_t bytes = 0;
    bool peers = false;
  };
  struct Place {
    bool found = false;
    uintptr_t work = 0;
    bool peers = false;
  };

  Place Find(const MemorySpan& span) const;
  void Free(const MemorySpan& span);

  const std::shared_ptr<const PeerEvent> event_;
  mutable Mutex mutex_;
  std::map<uintptr_t, Range> ranges_ ABSL_GUARDED_BY(mutex_);  // by device address
};

}  // namespace semshare

#endif  // SEMSHARE_TESTS_TESTING_LATE_MEMORY_H_
