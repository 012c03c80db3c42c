// LateLaneCore: the queue and the thread of one lane of a LateBackend.
//
// Thread-safe. Shared by the lane, its events and the backend; Stop ends the thread.
#ifndef SEMSHARE_TESTS_TESTING_LATE_LANE_H_
#define SEMSHARE_TESTS_TESTING_LATE_LANE_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"

namespace semshare {

class LateLaneCore : public std::enable_shared_from_this<LateLaneCore> {
 public:
  using Work = std::function<absl::Status()>;

  // REQUIRES: owned by a shared_ptr; Start once before use.
  explicit LateLaneCore(absl::Duration delay);
  ~LateLaneCore();

  void Start();
  // Runs what is pending, then ends the thread.
  void Stop();

  void Enqueue(Work work);
  // Forgets, in order, the error of the work so far: a new borrower must not see it.
  void EnqueueReset();
  // The point after everything so far.
  Event Record();
  void SetHeld(bool held);

 private:
  using Clock = std::chrono::steady_clock;

  class EventState;

  // One of: work; an event to settle; neither: forget the error.
  struct Item {
    Work work;
    std::shared_ptr<EventState> event;
    Clock::time_point due;
  };

  // Returns the item's sequence number.
  int64_t PushLocked(Item item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run();
  void RunFrontLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool FrontMayRunLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WaitForFrontLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::chrono::nanoseconds delay_;  // at most a day
  std::thread thread_;                    // Start and Stop only
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Item> queue_ ABSL_GUARDED_BY(mutex_);
  int64_t enqueued_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;    // items that have run
  int64_t wanted_ ABSL_GUARDED_BY(mutex_) = 0;  // items that somebody waits for
  absl::Status error_ ABSL_GUARDED_BY(mutex_);  // the first since the last reset
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace semshare

#endif  // SEMSHARE_TESTS_TESTING_LATE_LANE_H_
