#include "tests/testing/late_lane.h"

#include <algorithm>
#include <utility>

#include "kernels/base/status_macros.h"

namespace semshare {

// An event is an item of the queue that notes the error so far.
class LateLaneCore::EventState final : public Event::State {
 public:
  EventState(std::shared_ptr<LateLaneCore> core, int64_t sequence)
      : core_(std::move(core)), sequence_(sequence) {}

  bool Done() override {
    MutexLock lock(&core_->mutex_);
    return core_->done_ >= sequence_;
  }

  absl::Status Wait() override {
    MutexLock lock(&core_->mutex_);
    core_->wanted_ = std::max(core_->wanted_, sequence_);
    core_->changed_.NotifyAll();
    while (core_->done_ < sequence_) core_->changed_.Wait(&core_->mutex_);
    return status_;
  }

  // Called by the lane's thread with its mutex held, before the event is done.
  void SetStatus(absl::Status status) { status_ = std::move(status); }

 private:
  const std::shared_ptr<LateLaneCore> core_;
  const int64_t sequence_;
  absl::Status status_;  // guarded by core_->mutex_
};

LateLaneCore::LateLaneCore(absl::Duration delay)
    : delay_(absl::ToChronoNanoseconds(std::clamp(delay, absl::ZeroDuration(), absl::Hours(24)))) {}

LateLaneCore::~LateLaneCore() { SEMSHARE_CHECK(!thread_.joinable()); }

void LateLaneCore::Start() {
  thread_ = std::thread([this] { Run(); });
}

void LateLaneCore::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

int64_t LateLaneCore::PushLocked(Item item) {
  SEMSHARE_CHECK(!stopping_);
  item.due = Clock::now() + delay_;
  queue_.push_back(std::move(item));
  changed_.NotifyAll();
  return ++enqueued_;
}

void LateLaneCore::Enqueue(Work work) {
  MutexLock lock(&mutex_);
  PushLocked(Item{std::move(work), nullptr, {}});
}

void LateLaneCore::EnqueueReset() {
  MutexLock lock(&mutex_);
  PushLocked(Item{});
}

Event LateLaneCore::Record() {
  MutexLock lock(&mutex_);
  auto state = std::make_shared<EventState>(shared_from_this(), enqueued_ + 1);
  PushLocked(Item{nullptr, state, {}});
  return Event(std::move(state));
}

void LateLaneCore::SetHeld(bool held) {
  MutexLock lock(&mutex_);
  held_ = held;
  changed_.NotifyAll();
}

bool LateLaneCore::FrontMayRunLocked() const {
  if (stopping_) return true;
  return !held_ && (done_ < wanted_ || Clock::now() >= queue_.front().due);
}

void LateLaneCore::WaitForFrontLocked() {
  if (held_) return changed_.Wait(&mutex_);
  const auto left = queue_.front().due - Clock::now();
  if (left > std::chrono::nanoseconds::zero()) changed_.WaitFor(&mutex_, left);
}

void LateLaneCore::RunFrontLocked() {
  Item item = std::move(queue_.front());
  queue_.pop_front();
  if (item.event != nullptr) {
    item.event->SetStatus(error_);
  } else if (item.work == nullptr) {
    error_ = absl::OkStatus();
  } else if (error_.ok()) {
    mutex_.Unlock();
    absl::Status status = item.work();
    item.work = nullptr;  // what it holds is let go before the work counts as done
    mutex_.Lock();
    error_ = std::move(status);
  }
  ++done_;
  changed_.NotifyAll();
}

void LateLaneCore::Run() {
  MutexLock lock(&mutex_);
  while (true) {
    if (queue_.empty()) {
      if (stopping_) return;
      changed_.Wait(&mutex_);
    } else if (FrontMayRunLocked()) {
      RunFrontLocked();
    } else {
      WaitForFrontLocked();
    }
  }
}

}  // namespace semshare
