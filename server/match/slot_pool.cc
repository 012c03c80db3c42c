#include "server/match/slot_pool.h"

namespace semshare {

int64_t SlotPool::Enter() {
  const MutexLock lock(&mutex_);
  ++epochs_.back().readers;
  return first_epoch_ + static_cast<int64_t>(epochs_.size()) - 1;
}

void SlotPool::Leave(int64_t epoch) {
  const MutexLock lock(&mutex_);
  --epochs_[static_cast<size_t>(epoch - first_epoch_)].readers;
  Reclaim();
}

uint32_t SlotPool::Take() {
  const MutexLock lock(&mutex_);
  if (free_.empty()) return slots_++;
  const uint32_t slot = free_.back();
  free_.pop_back();
  return slot;
}

void SlotPool::GiveBack(uint32_t slot) {
  const MutexLock lock(&mutex_);
  epochs_.back().given_back.push_back(slot);
  epochs_.emplace_back();  // readers from now on do not keep it
  Reclaim();
}

// An epoch is over when it and all before it have no readers.
void SlotPool::Reclaim() {
  while (epochs_.size() > 1 && epochs_.front().readers == 0) {
    const std::vector<uint32_t>& given_back = epochs_.front().given_back;
    free_.insert(free_.end(), given_back.begin(), given_back.end());
    epochs_.pop_front();
    ++first_epoch_;
  }
}

}  // namespace semshare
