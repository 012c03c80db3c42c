#include "kernels/cpu/checksum.h"

#include <xxhash.h>

namespace semshare {

void Checksum(absl::Span<const MemorySpan> spans, uint64_t* digests, WorkerPool& pool) {
  pool.ParallelFor(static_cast<int64_t>(spans.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const MemorySpan& span = spans[static_cast<size_t>(i)];
      digests[i] =
          XXH3_64bits(reinterpret_cast<const void*>(span.address), static_cast<size_t>(span.bytes));
    }
  });
}

}  // namespace semshare
