#include "kernels/cpu/worker_pool.h"

#include <algorithm>

namespace semshare {
namespace {

// More pieces than threads, so that a thread that is descheduled holds little back.
constexpr int64_t kPiecesPerThread = 4;

}  // namespace

struct WorkerPool::Loop {
  absl::FunctionRef<void(int64_t, int64_t)> body;
  const int64_t count;
  const int64_t piece;  // items
  std::atomic<int64_t> next{0};
  int helpers = 0;       // workers inside; guarded by the pool's mutex
  Loop* link = nullptr;  // the next loop of the list; guarded by the pool's mutex
};

WorkerPool::WorkerPool(int threads) {
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { Work(); });
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  for (std::thread& worker : workers_) worker.join();
}

void WorkerPool::RunPieces(Loop& loop) {
  while (true) {
    const int64_t begin = loop.next.fetch_add(loop.piece, std::memory_order_relaxed);
    if (begin >= loop.count) return;
    loop.body(begin, std::min(begin + loop.piece, loop.count));
  }
}

void WorkerPool::ParallelFor(int64_t count, int64_t grain,
                             absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
  if (count <= 0) return;
  if (workers_.empty() || count <= grain) return body(0, count);
  Loop loop{body, count, std::max(grain, count / (threads() * kPiecesPerThread) + 1)};
  {
    MutexLock lock(&mutex_);
    loop.link = first_;
    first_ = &loop;
  }
  changed_.NotifyAll();
  RunPieces(loop);
  MutexLock lock(&mutex_);
  // Workers find loops in the list, under the mutex: once this one is out of the list and no helper
  // is inside, nobody knows of it.
  for (Loop** at = &first_; *at != nullptr; at = &(*at)->link) {
    if (*at == &loop) {
      *at = loop.link;
      break;
    }
  }
  while (loop.helpers > 0) changed_.Wait(&mutex_);
}

void WorkerPool::Work() {
  mutex_.Lock();
  while (true) {
    Loop* loop = first_;
    while (loop != nullptr && loop->next.load(std::memory_order_relaxed) >= loop->count) {
      loop = loop->link;
    }
    if (loop == nullptr) {
      if (stopping_) break;
      changed_.Wait(&mutex_);
      continue;
    }
    ++loop->helpers;
    mutex_.Unlock();
    RunPieces(*loop);
    mutex_.Lock();
    --loop->helpers;
    changed_.NotifyAll();
  }
  mutex_.Unlock();
}

}  // namespace semshare
