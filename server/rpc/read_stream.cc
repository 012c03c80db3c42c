#include "server/rpc/read_stream.h"

#include <utility>

#include "kernels/base/status_macros.h"
#include "proto/rpc_status.h"
#include "server/rpc/frame_codec.h"
#include "server/rpc/tenant.h"

namespace semshare {
namespace {

constexpr absl::Duration kLaneTimeout = absl::Seconds(10);

// A borrowed staging buffer; comes back when this is gone. A frame's slice owns one.
class BufferHold {
 public:
  BufferHold(std::shared_ptr<StreamStaging> staging, int buffer)
      : staging_(std::move(staging)), buffer_(buffer) {}
  ~BufferHold() { staging_->Return(buffer_); }
  BufferHold(const BufferHold&) = delete;
  BufferHold& operator=(const BufferHold&) = delete;

 private:
  const std::shared_ptr<StreamStaging> staging_;
  const int buffer_;
};

void DropHold(void* hold) { delete static_cast<BufferHold*>(hold); }

}  // namespace

ReadStream::ReadStream(Broker* broker, Executor* executor, StagingPool* staging, StreamWatch* watch,
                       grpc::CallbackServerContext* call, v1::ReadKvRequest request)
    : broker_(broker),
      executor_(executor),
      pool_(staging),
      request_(std::move(request)),
      ticket_(watch, call, broker->options().lease_timeout_ms, broker->now_ms()) {
  ++broker_->metrics().reads;
  SchedulePump();
}

absl::Status ReadStream::Open() {
  const int64_t limit = broker_->options().limits.max_frame_payload_bytes;
  int64_t frame_bytes = request_.max_frame_payload_bytes();
  if (frame_bytes == 0) frame_bytes = limit;
  if (frame_bytes > limit) {
    return absl::InvalidArgumentError("max_frame_payload_bytes: above the server's limit");
  }
  SEMSHARE_ASSIGN_OR_RETURN(MatchLeasePtr lease,
                            broker_->OpenLease(kDefaultTenant, request_.lease_id()));
  SEMSHARE_ASSIGN_OR_RETURN(
      reader_, MatchReader::Create(std::move(lease), request_.layer_begin(), request_.layer_end(),
                                   frame_bytes, broker_->arena()));
  SEMSHARE_ASSIGN_OR_RETURN(staging_, pool_->Borrow());
  staging_->SetListener([this] { SchedulePump(); });
  return absl::OkStatus();
}

absl::StatusOr<grpc::ByteBuffer> ReadStream::MakeFrame(int buffer) {
  const MemorySpan span = staging_->span(buffer);
  auto hold = std::make_unique<BufferHold>(staging_, buffer);
  // An open stream keeps its lease alive; a released or expired one ends the stream.
  SEMSHARE_RETURN_IF_ERROR(broker_->OpenLease(kDefaultTenant, request_.lease_id()).status());
  Backend* backend = broker_->backend();
  SEMSHARE_ASSIGN_OR_RETURN(Lane lane, backend->AcquireLane(kLaneTimeout));
  SEMSHARE_ASSIGN_OR_RETURN(const ReadFrame frame, reader_->EnqueueNext(backend, lane, span));
  SEMSHARE_ASSIGN_OR_RETURN(const Event done, backend->Record(lane));
  SEMSHARE_RETURN_IF_ERROR(done.Wait());
  broker_->metrics().read_bytes += static_cast<uint64_t>(frame.bytes);
  return EncodeReadFrame(frame, grpc::Slice(span.host(), frame.bytes, &DropHold, hold.release()));
}

void ReadStream::SchedulePump() {
  {
    MutexLock lock(&mutex_);
    if (finished_) return;
    if (pumping_) {
      pump_again_ = true;
      return;
    }
    pumping_ = true;
  }
  executor_->Submit([this] { Pump(); });
}

void ReadStream::SendOrQueue(grpc::ByteBuffer frame) {
  {
    MutexLock lock(&mutex_);
    if (writing_) {
      ready_.push_back(std::move(frame));
      return;
    }
    writing_ = true;
  }
  current_.Swap(&frame);
  StartWrite(&current_);
}

void ReadStream::Pump() {
  absl::Status status;
  bool cancelled = false;
  {
    MutexLock lock(&mutex_);
    cancelled = produced_all_;
  }
  if (reader_ == nullptr && !cancelled) status = Open();
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (produced_all_) break;
      if (!status.ok() || reader_->done()) {
        produced_all_ = true;
        status_ = status;
        break;
      }
      pump_again_ = false;
    }
    const int buffer = staging_->TryTake();
    if (buffer < 0) {
      MutexLock lock(&mutex_);
      if (pump_again_) continue;  // a buffer came back meanwhile
      pumping_ = false;
      return;  // the next Return schedules a new pump
    }
    absl::StatusOr<grpc::ByteBuffer> frame = MakeFrame(buffer);
    if (frame.ok()) {
      SendOrQueue(*std::move(frame));
    } else {
      status = frame.status();
    }
  }
  // The listener must be gone before the object can be: it is called from gRPC's threads.
  if (staging_ != nullptr) staging_->SetListener({});
  EndPump();
}

void ReadStream::EndPump() {
  absl::Status status;
  {
    // One step: once pumping_ is false another thread may pump, finish the call, and with it end
    // this object.
    MutexLock lock(&mutex_);
    pumping_ = false;
    if (finished_ || writing_ || !produced_all_) return;
    finished_ = true;
    status = status_;
  }
  if (!status.ok()) ++broker_->metrics().reads_failed;
  Finish(ToGrpcStatus(status));
}

void ReadStream::OnWriteDone(bool ok) {
  ticket_.Touch(broker_->now_ms());
  // Frames die outside of the lock: their buffers go back, which calls the listener.
  grpc::ByteBuffer sent;
  std::deque<grpc::ByteBuffer> dropped;
  bool send = false;
  {
    MutexLock lock(&mutex_);
    if (!ok && !produced_all_) {
      produced_all_ = true;
      status_ = absl::CancelledError("the client went away");
    }
    if (!ok) dropped.swap(ready_);
    sent.Swap(&current_);
    if (ready_.empty()) {
      writing_ = false;
    } else {
      current_.Swap(&ready_.front());
      ready_.pop_front();
      send = true;
    }
  }
  sent.Clear();
  dropped.clear();
  if (send) {
    StartWrite(&current_);
  } else {
    SchedulePump();  // its end finishes the call
  }
}

void ReadStream::OnDone() {
  // What other threads did to the object is ordered before its end in a way that ThreadSanitizer
  // sees: gRPC, through which it goes, is not instrumented.
  { MutexLock lock(&mutex_); }
  delete this;
}

void ReadStream::OnCancel() {
  {
    MutexLock lock(&mutex_);
    if (!produced_all_) {
      produced_all_ = true;
      status_ = absl::CancelledError("the call was cancelled");
    }
  }
  SchedulePump();
}

}  // namespace semshare
