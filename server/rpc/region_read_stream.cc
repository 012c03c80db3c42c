#include "server/rpc/region_read_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "proto/rpc_status.h"
#include "server/rpc/convert.h"
#include "server/rpc/frame_codec.h"
#include "server/rpc/tenant.h"

namespace semshare {
namespace {

constexpr absl::Duration kLaneTimeout = absl::Seconds(10);

}  // namespace

RegionReadStream::RegionReadStream(Broker* broker, Executor* executor, StreamWatch* watch,
                                   grpc::CallbackServerContext* call, v1::ReadKvRequest request)
    : broker_(broker),
      executor_(executor),
      request_(std::move(request)),
      ticket_(watch, call, broker->options().lease_timeout_ms, broker->now_ms()) {
  ++broker_->metrics().reads;
  executor_->Submit([this] { Step(); });
}

absl::Status RegionReadStream::Open() {
  if (request_.max_frame_payload_bytes() != 0) {
    return absl::InvalidArgumentError(
        "max_frame_payload_bytes: only TRANSPORT_INLINE has frames with payload");
  }
  SEMSHARE_ASSIGN_OR_RETURN(region_,
                            broker_->regions()->Find(kDefaultTenant, request_.target().region()));
  const bool device = region_->span().kind == MemoryKind::kDevice;
  if (device != (request_.transport() == v1::TRANSPORT_CUDA_IPC)) {
    return absl::InvalidArgumentError(absl::StrCat("target.region: is ",
                                                   device ? "memory of a GPU" : "shared memory",
                                                   ", which the call's transport is not for"));
  }
  SEMSHARE_ASSIGN_OR_RETURN(KvView view, ToKvView("target", request_.target(), region_->span()));
  SEMSHARE_ASSIGN_OR_RETURN(MatchLeasePtr lease,
                            broker_->OpenLease(kDefaultTenant, request_.lease_id()));
  SEMSHARE_ASSIGN_OR_RETURN(
      reader_, RegionReader::Create(std::move(lease), request_.layer_begin(), request_.layer_end(),
                                    broker_->arena(), std::move(view)));
  return absl::OkStatus();
}

absl::StatusOr<int> RegionReadStream::NextLayer() {
  const bool first = reader_ == nullptr;
  if (first) {
    SEMSHARE_RETURN_IF_ERROR(Open());
  } else {
    // An open stream keeps its lease alive; a released or expired one ends the stream.
    SEMSHARE_RETURN_IF_ERROR(broker_->OpenLease(kDefaultTenant, request_.lease_id()).status());
  }
  Backend* backend = broker_->backend();
  SEMSHARE_ASSIGN_OR_RETURN(Lane lane, backend->AcquireLane(kLaneTimeout));
  // Later layers come after the first one's end, so they need not wait again.
  if (first) SEMSHARE_RETURN_IF_ERROR(region_->EnqueueWait(lane));
  absl::StatusOr<int> layer = reader_->EnqueueLayer(backend, lane);
  // Waited for even after an error: part of the layer may be under way.
  SEMSHARE_ASSIGN_OR_RETURN(const Event done, backend->Record(lane));
  SEMSHARE_RETURN_IF_ERROR(done.Wait());
  SEMSHARE_RETURN_IF_ERROR(layer.status());
  broker_->metrics().read_bytes += static_cast<uint64_t>(reader_->layer_bytes(*layer));
  ticket_.Touch(broker_->now_ms());
  return layer;
}

void RegionReadStream::Step() {
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    if (cancelled_) status = absl::CancelledError("the call was cancelled");
  }
  if (status.ok()) {
    const absl::StatusOr<int> layer = NextLayer();
    status = layer.status();
    if (layer.ok() && ReportFirst(*layer)) return;
    if (layer.ok()) Report(*layer);
  }
  if (status.ok() && !reader_->done()) {
    executor_->Submit([this] { Step(); });
    return;
  }
  // So that the memory is the worker's again when it hears of the end.
  reader_ = nullptr;
  region_ = nullptr;
  {
    MutexLock lock(&mutex_);
    status_ = status;
  }
  FinishIfIdle(/*step_ended=*/true);
}

bool RegionReadStream::ReportFirst(int layer) {
  {
    MutexLock lock(&mutex_);
    if (ready_layer_ >= 0 || reader_->done()) return false;
    paused_ = true;
  }
  Report(layer);
  return true;
}

void RegionReadStream::Report(int layer) {
  {
    MutexLock lock(&mutex_);
    ready_layer_ = layer;
    if (writing_) return;  // the end of that write reports it
    writing_ = true;
    reported_layer_ = layer;
  }
  frame_ = EncodeProgressFrame(layer);
  StartWrite(&frame_);
}

void RegionReadStream::OnWriteDone(bool ok) {
  int layer = -1;
  bool resume = false;
  {
    MutexLock lock(&mutex_);
    if (!ok) cancelled_ = true;
    resume = std::exchange(paused_, false);
    if (ok && ready_layer_ > reported_layer_) {
      layer = reported_layer_ = ready_layer_;
    } else {
      writing_ = false;
    }
  }
  if (resume) executor_->Submit([this] { Step(); });
  if (layer < 0) return FinishIfIdle(/*step_ended=*/false);
  frame_ = EncodeProgressFrame(layer);
  StartWrite(&frame_);
}

void RegionReadStream::OnDone() {
  // What other threads did to the object is ordered before its end in a way that ThreadSanitizer
  // sees: gRPC, through which it goes, is not instrumented.
  { MutexLock lock(&mutex_); }
  delete this;
}

void RegionReadStream::OnCancel() {
  MutexLock lock(&mutex_);
  cancelled_ = true;
}

void RegionReadStream::FinishIfIdle(bool step_ended) {
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    if (step_ended) stepping_ = false;
    if (finished_ || stepping_ || writing_) return;
    finished_ = true;
    status = status_;
  }
  if (!status.ok()) ++broker_->metrics().reads_failed;
  Finish(ToGrpcStatus(status));
}

}  // namespace semshare
