// Hamming scans of sign codes, on the CPU: the k nearest live codes, and the nearest code of a
// window. Codes are `words` 64-bit words each. Ties go to the lower index.
//
// Thread-safe: pure functions over the caller's memory; nothing is allocated.
#ifndef SEMSHARE_KERNELS_CPU_HAMMING_H_
#define SEMSHARE_KERNELS_CPU_HAMMING_H_

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/hamming_key.h"

namespace semshare {

// REQUIRES: the spans are resolved; CheckHammingTopK(args) is OK.
void HammingTopK(const HammingTopKArgs& args, WorkerPool& pool);

// REQUIRES: the spans are resolved; CheckNearestCode(args) is OK.
void NearestCode(const NearestCodeArgs& args, WorkerPool& pool);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_HAMMING_H_
