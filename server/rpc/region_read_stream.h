// RegionReadStream: one ReadKv call over shared memory or CUDA IPC. Rows are realigned into the
// worker's memory on executor threads, layer by layer; the frames only say how far it is. A frame
// goes out when its layer's Event is done: that orders the worker's use of the rows, on the CPU and
// on the GPU (PeerMemory).
//
// Calls take turns after every layer, so many readers finish together instead of one by one.
// Progress that gRPC has not taken yet is overtaken by later progress: nothing queues up. But the
// first layer is what the worker waits for: the next one is begun when its frame has left, or else
// the threads of gRPC and of the worker would wait for cores that are busy with later layers.
//
// Deletes itself when the call is over (gRPC's reactor life). Thread-safe, as gRPC's
// reactors must be.
#ifndef SEMSHARE_SERVER_RPC_REGION_READ_STREAM_H_
#define SEMSHARE_SERVER_RPC_REGION_READ_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/mutex.h"
#include "semshare/v1/cache_broker.pb.h"
#include "server/broker.h"
#include "server/executor.h"
#include "server/region_reader.h"
#include "server/rpc/stream_watch.h"

namespace semshare {

class RegionReadStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // `broker`, `executor` and `watch` outlive the call. Starts at once.
  RegionReadStream(Broker* broker, Executor* executor, StreamWatch* watch,
                   grpc::CallbackServerContext* call, v1::ReadKvRequest request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  absl::Status Open();
  // Realigns one layer and returns its number.
  absl::StatusOr<int> NextLayer();
  // One turn on the executor. Nothing may touch the object after it unless it scheduled another.
  void Step();
  // Reports the first layer of several; the next turn comes when gRPC has taken the frame. False,
  // and nothing is done, for other layers.
  bool ReportFirst(int layer);
  void Report(int layer);
  // Ends the call if neither a turn nor a write is going on. `step_ended`: no turn follows.
  void FinishIfIdle(bool step_ended);

  Broker* const broker_;
  Executor* const executor_;
  const v1::ReadKvRequest request_;
  StreamWatch::Ticket ticket_;

  // Used by Step only, one turn at a time.
  RegionPtr region_;
  std::unique_ptr<RegionReader> reader_;

  Mutex mutex_;
  bool stepping_ ABSL_GUARDED_BY(mutex_) = true;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;  // the end of the write schedules the next turn
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  int ready_layer_ ABSL_GUARDED_BY(mutex_) = -1;
  int reported_layer_ ABSL_GUARDED_BY(mutex_) = -1;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer frame_;  // on the wire; one write at a time
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_REGION_READ_STREAM_H_
