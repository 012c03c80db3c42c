// Copies on the CPU. Thread-safe: pure function over the caller's memory.
#ifndef SEMSHARE_KERNELS_CPU_COPY_H_
#define SEMSHARE_KERNELS_CPU_COPY_H_

#include "kernels/backend.h"
#include "kernels/cpu/worker_pool.h"

namespace semshare {

// REQUIRES: the spans are resolved; CheckCopy(destination, source) is OK.
void Copy(const MemorySpan& destination, const MemorySpan& source, WorkerPool& pool);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_COPY_H_
