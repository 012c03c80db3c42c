#include "kernels/span_registry.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {

absl::Status SpanRegistry::AddLocked(const MemorySpan& span, bool shared) {
  SEMSHARE_CHECK(span.bytes >= 1);
  const uintptr_t bytes = static_cast<uintptr_t>(span.bytes);
  const auto next = known_.lower_bound({span.kind, span.address});
  bool overlaps = next != known_.end() && next->first.first == span.kind &&
                  next->first.second - span.address < bytes;
  if (next != known_.begin()) {
    const auto previous = std::prev(next);
    overlaps = overlaps || (previous->first.first == span.kind &&
                            span.address - previous->first.second <
                                static_cast<uintptr_t>(previous->second.bytes));
  }
  if (overlaps) {
    return absl::InvalidArgumentError(
        absl::StrCat("memory of ", span.bytes, " bytes overlaps memory that is known already"));
  }
  known_.emplace(Key{span.kind, span.address}, Known{span.bytes, shared});
  return absl::OkStatus();
}

absl::Status SpanRegistry::Add(const MemorySpan& span) {
  MutexLock lock(&mutex_);
  return AddLocked(span, /*shared=*/false);
}

absl::Status SpanRegistry::AddShared(const MemorySpan& span) {
  MutexLock lock(&mutex_);
  const auto found = known_.find({span.kind, span.address});
  if (found != known_.end() && found->second.shared && found->second.bytes == span.bytes) {
    ++found->second.users;
    return absl::OkStatus();
  }
  return AddLocked(span, /*shared=*/true);
}

void SpanRegistry::Remove(const MemorySpan& span) {
  MutexLock lock(&mutex_);
  const auto found = known_.find({span.kind, span.address});
  SEMSHARE_CHECK(found != known_.end());
  if (--found->second.users == 0) known_.erase(found);
}

bool SpanRegistry::Contains(const MemorySpan& span) const {
  if (span.bytes == 0) return true;
  if (span.bytes < 0) return false;
  MutexLock lock(&mutex_);
  auto found = known_.upper_bound({span.kind, span.address});
  if (found == known_.begin()) return false;
  --found;
  if (found->first.first != span.kind) return false;
  const uintptr_t offset = span.address - found->first.second;
  const uintptr_t known = static_cast<uintptr_t>(found->second.bytes);
  return offset <= known && static_cast<uintptr_t>(span.bytes) <= known - offset;
}

}  // namespace semshare
