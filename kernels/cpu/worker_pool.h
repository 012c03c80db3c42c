// WorkerPool: a few threads that help a caller with a loop.
//
// Thread-safe: several callers may run loops at once; each caller works on its own loop too, so a
// pool of one thread has no threads at all and runs everything in the caller. Allocates only when
// created. Owns its threads; they end when it is destroyed.
#ifndef SEMSHARE_KERNELS_CPU_WORKER_POOL_H_
#define SEMSHARE_KERNELS_CPU_WORKER_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/base/mutex.h"

namespace semshare {

class WorkerPool {
 public:
  // REQUIRES: threads >= 1, the caller included.
  explicit WorkerPool(int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end) on disjoint ranges that cover [0, count), each of at least
  // `grain` items (the last may be shorter), on several threads at once; returns when all are done.
  // REQUIRES: grain >= 1; `body` does not throw.
  void ParallelFor(int64_t count, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end)> body);

 private:
  struct Loop;  // lives on the stack of its caller

  static void RunPieces(Loop& loop);
  void Work();

  Mutex mutex_;
  CondVar changed_;
  Loop* first_ ABSL_GUARDED_BY(mutex_) = nullptr;  // loops that still have pieces to hand out
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> workers_;  // constant after construction
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_WORKER_POOL_H_
