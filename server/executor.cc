#include "server/executor.h"

#include <utility>

namespace semshare {

Executor::Executor(int threads, int max_queue) : max_queue_(static_cast<size_t>(max_queue)) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

Executor::~Executor() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  ready_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

bool Executor::TrySubmit(Task task) {
  {
    MutexLock lock(&mutex_);
    if (queue_.size() >= max_queue_) return false;
    queue_.push_back(std::move(task));
  }
  ready_.NotifyOne();
  return true;
}

void Executor::Submit(Task task) {
  {
    MutexLock lock(&mutex_);
    queue_.push_back(std::move(task));
  }
  ready_.NotifyOne();
}

void Executor::Run() {
  while (true) {
    Task task;
    {
      MutexLock lock(&mutex_);
      while (queue_.empty() && !stopping_) ready_.Wait(&mutex_);
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task();
  }
}

}  // namespace semshare
