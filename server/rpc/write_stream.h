// The two client streams: WriteKv (raw frames into an upload) and RegisterModel. Each reads one
// message, works on it on the executor, then reads the next.
//
// Delete themselves when the call is over. Not thread-safe, and need not be: the next read
// starts only when the work on the last message is done. `turns_` hands the state from one
// message's thread to the next one's in a way that ThreadSanitizer sees: Debian's gRPC, through
// which it goes, is not instrumented.
#ifndef SEMSHARE_SERVER_RPC_WRITE_STREAM_H_
#define SEMSHARE_SERVER_RPC_WRITE_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "semshare/v1/cache_broker.pb.h"
#include "server/broker.h"
#include "server/executor.h"
#include "server/rpc/frame_codec.h"
#include "server/rpc/stream_watch.h"

namespace semshare {

class WriteStream final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  // `broker` and `executor` outlive the call; `response` belongs to it. Starts at once.
  WriteStream(Broker* broker, Executor* executor, StreamWatch* watch,
              grpc::CallbackServerContext* call, grpc::ByteBuffer* response);
  ~WriteStream() override;

  void OnReadDone(bool ok) override;
  void OnDone() override;

 private:
  void ReadNext();
  void End(const absl::Status& status);
  // Returns true when the upload is committed.
  absl::StatusOr<bool> Work();
  // Takes the rows of a frame, or of the layers that it says are ready in the source.
  absl::Status TakeRows(const ReceivedFrame& received);
  absl::Status SetSource(const ReceivedFrame& received);
  absl::Status Commit();
  // Undoes an upload that was not committed.
  void DropUpload();

  Broker* const broker_;
  Executor* const executor_;
  grpc::ByteBuffer* const response_;
  grpc::ByteBuffer message_;
  StreamWatch::Ticket ticket_;
  RegionPtr region_;  // where the rows come from; null: from the frames
  std::unique_ptr<Upload> upload_;
  std::atomic<int64_t> turns_{0};
};

// Each registration holds a whole embedding table until it ends, so few run at a time.
inline constexpr int kMaxRegistrations = 2;

class RegisterStream final : public grpc::ServerReadReactor<v1::RegisterModelFrame> {
 public:
  // `streams` counts the registrations in progress and outlives the call.
  RegisterStream(Broker* broker, Executor* executor, StreamWatch* watch, std::atomic<int>* streams,
                 grpc::CallbackServerContext* call, v1::RegisterModelResponse* response);

  void OnReadDone(bool ok) override;
  void OnDone() override;

 private:
  void ReadNext();
  void End(const absl::Status& status);
  absl::Status Take();
  absl::Status TakeFloats(const char* field, const std::string& bytes, int64_t limit,
                          std::vector<float>* values);
  absl::Status Register();

  Broker* const broker_;
  Executor* const executor_;
  std::atomic<int>* const streams_;
  v1::RegisterModelResponse* const response_;
  StreamWatch::Ticket ticket_;
  v1::RegisterModelFrame message_;
  ModelRegistration registration_;
  bool has_spec_ = false;
  std::atomic<int64_t> turns_{0};
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_WRITE_STREAM_H_
