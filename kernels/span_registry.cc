#include "kernels/span_registry.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {

absl::Status SpanRegistry::Add(const MemorySpan& span) {
  SEMSHARE_CHECK(span.bytes >= 1);
  const uintptr_t bytes = static_cast<uintptr_t>(span.bytes);
  MutexLock lock(&mutex_);
  const auto next = bytes_.lower_bound({span.kind, span.address});
  bool overlaps = next != bytes_.end() && next->first.first == span.kind &&
                  next->first.second - span.address < bytes;
  if (next != bytes_.begin()) {
    const auto previous = std::prev(next);
    overlaps = overlaps ||
               (previous->first.first == span.kind &&
                span.address - previous->first.second < static_cast<uintptr_t>(previous->second));
  }
  if (overlaps) {
    return absl::InvalidArgumentError(
        absl::StrCat("memory of ", span.bytes, " bytes overlaps memory that is known already"));
  }
  bytes_.emplace(Key{span.kind, span.address}, span.bytes);
  return absl::OkStatus();
}

void SpanRegistry::Remove(const MemorySpan& span) {
  MutexLock lock(&mutex_);
  SEMSHARE_CHECK(bytes_.erase({span.kind, span.address}) == 1);
}

bool SpanRegistry::Contains(const MemorySpan& span) const {
  if (span.bytes == 0) return true;
  if (span.bytes < 0) return false;
  MutexLock lock(&mutex_);
  auto found = bytes_.upper_bound({span.kind, span.address});
  if (found == bytes_.begin()) return false;
  --found;
  if (found->first.first != span.kind) return false;
  const uintptr_t offset = span.address - found->first.second;
  const uintptr_t known = static_cast<uintptr_t>(found->second);
  return offset <= known && static_cast<uintptr_t>(span.bytes) <= known - offset;
}

}  // namespace semshare
