// Executor: a fixed set of threads that run short tasks in order of arrival. RPC handlers hand
// their blocking work to it, so that gRPC's own threads never wait for a disk or a device.
//
// Thread-safe. The destructor runs what is queued and joins.
#ifndef SEMSHARE_SERVER_EXECUTOR_H_
#define SEMSHARE_SERVER_EXECUTOR_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/base/mutex.h"

namespace semshare {

class Executor {
 public:
  using Task = std::function<void()>;

  // At most `max_queue` tasks wait.
  Executor(int threads, int max_queue);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // False, and the task is not run, if the queue is full.
  [[nodiscard]] bool TrySubmit(Task task);
  // For the next step of work that was admitted already: never refused.
  void Submit(Task task);

 private:
  void Run();

  const size_t max_queue_;
  Mutex mutex_;
  CondVar ready_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_EXECUTOR_H_
