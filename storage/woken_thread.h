// WokenThread: a thread for work that is due now and then, and need not keep up. Internal to
// storage/.
//
// Thread-safe.
#ifndef SEMSHARE_STORAGE_WOKEN_THREAD_H_
#define SEMSHARE_STORAGE_WOKEN_THREAD_H_

#include <atomic>
#include <functional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "kernels/base/mutex.h"

namespace semshare {

class WokenThread {
 public:
  // Once for any number of Wake calls since it was called last. It should end early when `stopping`
  // becomes true.
  using Work = std::function<void(std::atomic<bool>& stopping)>;

  explicit WokenThread(Work work) : work_(std::move(work)), thread_([this] { Run(); }) {}
  // Waits for the work that goes on, if any.
  ~WokenThread() {
    stopping_ = true;
    Wake();
    thread_.join();
  }
  WokenThread(const WokenThread&) = delete;
  WokenThread& operator=(const WokenThread&) = delete;

  void Wake() {
    {
      const MutexLock lock(&mutex_);
      awake_ = true;
    }
    woken_.NotifyOne();
  }

 private:
  void Run() {
    while (true) {
      {
        const MutexLock lock(&mutex_);
        while (!awake_) woken_.Wait(&mutex_);
        awake_ = false;
      }
      if (stopping_) return;
      work_(stopping_);
    }
  }

  const Work work_;
  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  CondVar woken_;
  bool awake_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_WOKEN_THREAD_H_
