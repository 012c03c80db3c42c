// Matrix product on the CPU, by OpenBLAS.
//
// OpenBLAS's own threads are switched off for the whole process at the first call: the pool's
// threads split the rows of A instead, so an operation uses no more threads than its backend was
// given. Thread-safe: pure function over the caller's memory.
#ifndef SEMSHARE_KERNELS_CPU_PROJECT_H_
#define SEMSHARE_KERNELS_CPU_PROJECT_H_

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/worker_pool.h"

namespace semshare {

// C = A * B - bias. REQUIRES: the spans are resolved; CheckProject(args) is OK.
void Project(const ProjectArgs& args, WorkerPool& pool);

// Row-major c[m][n] = a[m][k] * b[k][n] in the calling thread. REQUIRES: n, k <= kMaxProjectDim.
void MultiplyRows(const float* a, const float* b, float* c, int64_t m, int64_t n, int64_t k);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_PROJECT_H_
