// StreamWatch: ends streams whose peer stopped taking part. A client that neither reads nor writes
// nor goes away would hold pins, staging and uploads for ever.
//
// Thread-safe. A Ticket belongs to one call, and dies with it, before gRPC's context does.
#ifndef SEMSHARE_SERVER_RPC_STREAM_WATCH_H_
#define SEMSHARE_SERVER_RPC_STREAM_WATCH_H_

#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "kernels/base/mutex.h"

namespace semshare {

class StreamWatch {
 public:
  class Ticket {
   public:
    // The call is cancelled when CancelStalled finds it `timeout_ms` after its last progress.
    Ticket(StreamWatch* watch, grpc::CallbackServerContext* call, int64_t timeout_ms,
           int64_t now_ms);
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    void Touch(int64_t now_ms) { progress_ms_.store(now_ms, std::memory_order_relaxed); }

   private:
    friend class StreamWatch;
    StreamWatch* const watch_;
    grpc::CallbackServerContext* const call_;
    const int64_t timeout_ms_;
    std::atomic<int64_t> progress_ms_;
  };

  // Returns how many calls it cancelled.
  int64_t CancelStalled(int64_t now_ms);

  int64_t open() const;

 private:
  mutable Mutex mutex_;
  absl::flat_hash_set<Ticket*> tickets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_STREAM_WATCH_H_
