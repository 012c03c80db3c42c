// ReadStream: one ReadKv call. Frames are realigned into staging on executor threads while the one
// before is on the wire; gRPC's write-ready callbacks pace it.
//
// Deletes itself when the call is over (gRPC's reactor life). Thread-safe, as gRPC's
// reactors must be.
#ifndef SEMSHARE_SERVER_RPC_READ_STREAM_H_
#define SEMSHARE_SERVER_RPC_READ_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/mutex.h"
#include "semshare/v1/cache_broker.pb.h"
#include "server/broker.h"
#include "server/executor.h"
#include "server/match_reader.h"
#include "server/rpc/stream_watch.h"
#include "server/transport/staging.h"

namespace semshare {

class ReadStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // `broker`, `executor` and `staging` outlive the call. Starts at once.
  ReadStream(Broker* broker, Executor* executor, StagingPool* staging, StreamWatch* watch,
             grpc::CallbackServerContext* call, v1::ReadKvRequest request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // Opens the lease and the tables.
  absl::Status Open();
  // Realigns one frame into staging buffer `buffer`.
  absl::StatusOr<grpc::ByteBuffer> MakeFrame(int buffer);
  // Runs on the executor, one at a time, until there is nothing to do.
  void Pump();
  void SchedulePump();
  void SendOrQueue(grpc::ByteBuffer frame);
  // The end of a pump: ends the call if nothing else is running. Nothing may touch the object
  // after it.
  void EndPump();

  Broker* const broker_;
  Executor* const executor_;
  StagingPool* const pool_;
  const v1::ReadKvRequest request_;
  StreamWatch::Ticket ticket_;

  // Used by Pump only, which runs one at a time.
  std::shared_ptr<StreamStaging> staging_;
  std::unique_ptr<MatchReader> reader_;

  Mutex mutex_;
  bool pumping_ ABSL_GUARDED_BY(mutex_) = false;
  bool pump_again_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool produced_all_ ABSL_GUARDED_BY(mutex_) = false;  // or failed
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::deque<grpc::ByteBuffer> ready_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer current_;  // the frame on the wire; one write at a time
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_READ_STREAM_H_
