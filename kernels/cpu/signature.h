// Sign signatures of weighted sums of projected rows, on the CPU. Sums are in fp64 in the order of
// the ids, so a signature does not depend on the number of threads.
//
// Thread-safe: pure functions over the caller's memory; nothing is allocated.
#ifndef SEMSHARE_KERNELS_CPU_SIGNATURE_H_
#define SEMSHARE_KERNELS_CPU_SIGNATURE_H_

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/worker_pool.h"

namespace semshare {

// REQUIRES: the spans are resolved; CheckSignature(args) is OK.
void Signature(const SignatureArgs& args, WorkerPool& pool);

// Bit b is set where values[b] > 0 (so not for NaN), for 64 values.
template <typename T>
uint64_t SignBits(const T* values) {
  uint64_t word = 0;
  for (int b = 0; b < 64; ++b) word |= static_cast<uint64_t>(values[b] > 0) << b;
  return word;
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_SIGNATURE_H_
