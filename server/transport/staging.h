// Staging for the inline transport: host buffers that hold one frame each, taken and touched at
// start. A stream borrows a fixed quota for its life; a frame's buffer comes back when the last
// slice over it is gone, on whatever thread that is.
//
// StagingPool and StreamStaging are thread-safe. The pool must outlive every frame.
#ifndef SEMSHARE_SERVER_TRANSPORT_STAGING_H_
#define SEMSHARE_SERVER_TRANSPORT_STAGING_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"

namespace semshare {

class StagingPool;

// The buffers of one stream.
class StreamStaging {
 public:
  ~StreamStaging();
  StreamStaging(const StreamStaging&) = delete;
  StreamStaging& operator=(const StreamStaging&) = delete;

  // A free buffer, or -1.
  int TryTake();
  MemorySpan span(int buffer) const;
  // Gives a buffer back and calls the listener, if there is one.
  void Return(int buffer);
  // Called after each Return, from the thread that returns. Replaced by an empty function before
  // the stream goes; after that call returns, no call is running.
  void SetListener(std::function<void()> listener);

 private:
  friend class StagingPool;
  StreamStaging(StagingPool* pool, std::vector<int> buffers);

  StagingPool* const pool_;
  const std::vector<int> buffers_;
  Mutex mutex_;
  std::vector<int> free_ ABSL_GUARDED_BY(mutex_);
  Mutex listener_mutex_;  // before mutex_; held while the listener runs
  std::function<void()> listener_ ABSL_GUARDED_BY(listener_mutex_);
};

class StagingPool {
 public:
  static constexpr int kBuffersPerStream = 3;  // one on the wire, one ready, one being filled

  // `streams` quotas of kBuffersPerStream buffers of `buffer_bytes` each.
  static absl::StatusOr<std::unique_ptr<StagingPool>> Create(Backend* backend, int streams,
                                                             int64_t buffer_bytes);

  int64_t buffer_bytes() const { return buffer_bytes_; }
  // RESOURCE_EXHAUSTED if all quotas are lent.
  absl::StatusOr<std::shared_ptr<StreamStaging>> Borrow();

 private:
  friend class StreamStaging;
  StagingPool(Buffer memory, int buffers, int64_t buffer_bytes);
  void GiveBack(const std::vector<int>& buffers);

  const Buffer memory_;
  const int64_t buffer_bytes_;
  Mutex mutex_;
  std::vector<int> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_TRANSPORT_STAGING_H_
