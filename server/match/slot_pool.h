// SlotPool: numbers (slots) of things that readers look at without a lock.
//
// A slot that is given back is given out again only when every reader that may still look at it has
// left, so that what lies at a slot stays as it is for as long as a reader is inside (epoch-based
// reclamation; Fraser, 2004).
//
// Thread-safe; the lock is held for a few instructions.
#ifndef SEMSHARE_SERVER_MATCH_SLOT_POOL_H_
#define SEMSHARE_SERVER_MATCH_SLOT_POOL_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/base/mutex.h"

namespace semshare {

class SlotPool {
 public:
  SlotPool() : epochs_(1) {}

  // Inside from construction to destruction. The pool must outlive it.
  class Reader {
   public:
    explicit Reader(SlotPool* pool) : pool_(*pool), epoch_(pool->Enter()) {}
    ~Reader() { pool_.Leave(epoch_); }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

   private:
    SlotPool& pool_;
    const int64_t epoch_;
  };

  // A slot that nobody uses; a new one is one above the highest so far.
  uint32_t Take();
  // REQUIRES: a reader that enters from now on does not find the slot.
  void GiveBack(uint32_t slot);

 private:
  struct Epoch {
    int64_t readers = 0;
    std::vector<uint32_t> given_back;  // by the end of this epoch
  };

  int64_t Enter();
  void Leave(int64_t epoch);
  void Reclaim() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  // Guarded by mutex_. Readers enter the last epoch; the first one has the number first_epoch_.
  std::deque<Epoch> epochs_ ABSL_GUARDED_BY(mutex_);
  int64_t first_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mutex_);
  uint32_t slots_ ABSL_GUARDED_BY(mutex_) = 0;  // all that were ever given out
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_SLOT_POOL_H_
