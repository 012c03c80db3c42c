#include "server/rpc/stream_watch.h"

#include <grpcpp/server_context.h>

namespace semshare {

StreamWatch::Ticket::Ticket(StreamWatch* watch, grpc::CallbackServerContext* call,
                            int64_t timeout_ms, int64_t now_ms)
    : watch_(watch), call_(call), timeout_ms_(timeout_ms), progress_ms_(now_ms) {
  MutexLock lock(&watch_->mutex_);
  watch_->tickets_.insert(this);
}

StreamWatch::Ticket::~Ticket() {
  MutexLock lock(&watch_->mutex_);
  watch_->tickets_.erase(this);
}

int64_t StreamWatch::CancelStalled(int64_t now_ms) {
  int64_t cancelled = 0;
  // Under the lock, so that no call goes away meanwhile. TryCancel only hands the request over.
  MutexLock lock(&mutex_);
  for (Ticket* ticket : tickets_) {
    if (now_ms - ticket->progress_ms_.load(std::memory_order_relaxed) <= ticket->timeout_ms_) {
      continue;
    }
    ticket->call_->TryCancel();
    ticket->Touch(now_ms);  // not again at once
    ++cancelled;
  }
  return cancelled;
}

int64_t StreamWatch::open() const {
  MutexLock lock(&mutex_);
  return static_cast<int64_t>(tickets_.size());
}

}  // namespace semshare
