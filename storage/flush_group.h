// FlushGroup: lets concurrent callers share one run of an expensive operation that covers all that
// happened before it began, as a flush of a disk does. Internal to storage/.
//
// Thread-safe. One run at a time; it is done by one of the callers, without the lock held.
#ifndef SEMSHARE_STORAGE_FLUSH_GROUP_H_
#define SEMSHARE_STORAGE_FLUSH_GROUP_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/base/mutex.h"

namespace semshare {

class FlushGroup {
 public:
  // Returns after a run that began after the call did, with its status. `run` takes the number of
  // the run, counted from 1, and returns its status; every caller must give an equivalent one.
  template <typename Run>
  absl::Status Flush(const Run& run) {
    int64_t number = 0;
    {
      const MutexLock lock(&mutex_);
      // The run that goes on now, if any, may have begun before what the caller did. The next one
      // covers all callers that wait here; the first of them to wake does it for all.
      const int64_t wanted = started_ + 1;
      while (finished_ < wanted && started_ != finished_) changed_.Wait(&mutex_);
      // A later run than the wanted one covers it as well.
      if (finished_ >= wanted) return status_;
      number = ++started_;
    }
    absl::Status status = run(number);
    const MutexLock lock(&mutex_);
    finished_ = number;
    status_ = status;
    changed_.NotifyAll();
    return status;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int64_t started_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t finished_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // of the run that finished last
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_FLUSH_GROUP_H_
