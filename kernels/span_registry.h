// SpanRegistry: the memory that a backend allocated or was told of, so that a span from outside is
// refused before a device faults on it.
//
// Thread-safe.
#ifndef SEMSHARE_KERNELS_SPAN_REGISTRY_H_
#define SEMSHARE_KERNELS_SPAN_REGISTRY_H_

#include <cstdint>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"

namespace semshare {

class SpanRegistry {
 public:
  // INVALID_ARGUMENT if the span overlaps one of its kind that is known already.
  absl::Status Add(const MemorySpan& span);

  // As Add, but this very span may be known from an AddShared before: it stays known until it was
  // removed as often.
  absl::Status AddShared(const MemorySpan& span);

  // REQUIRES: the span was added, with this address and kind.
  void Remove(const MemorySpan& span);

  // Whether the span is empty or lies within one known span of its kind.
  bool Contains(const MemorySpan& span) const;

 private:
  using Key = std::pair<MemoryKind, uintptr_t>;

  struct Known {
    int64_t bytes = 0;
    bool shared = false;
    int64_t users = 1;
  };

  absl::Status AddLocked(const MemorySpan& span, bool shared) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  std::map<Key, Known> known_ ABSL_GUARDED_BY(mutex_);  // by kind and address; no two overlap
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_SPAN_REGISTRY_H_
