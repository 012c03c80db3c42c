// XXH3-64 of spans, on the CPU. Thread-safe: pure functions over the caller's memory.
#ifndef SEMSHARE_KERNELS_CPU_CHECKSUM_H_
#define SEMSHARE_KERNELS_CPU_CHECKSUM_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/worker_pool.h"

namespace semshare {

// digests[i] = XXH3-64 of spans[i], seed 0. REQUIRES: this thread may read the spans' addresses
// (their kind is not looked at), and digests holds spans.size() values.
void Checksum(absl::Span<const MemorySpan> spans, uint64_t* digests, WorkerPool& pool);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_CHECKSUM_H_
