// One gRPC channel to the broker and blocking calls over it. This is the client's only door to
// gRPC: methods are called by name, messages travel as bytes, so that bulk payloads need no
// protobuf parse and nobody else includes gRPC's headers.
//
// Thread-safe: RpcChannel. Not thread-safe: RpcStream, which belongs to the thread that uses it.
// Ownership: streams share the channel and may outlive the RpcChannel.
#ifndef SEMSHARE_CLIENT_CPP_RPC_CHANNEL_H_
#define SEMSHARE_CLIENT_CPP_RPC_CHANNEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cpp/kv_rows.h"

namespace semshare::client {

// One call that streams in at least one direction. Destroying it before Finish() cancels the call.
// Not thread-safe.
class RpcStream {
 public:
  struct State;

  explicit RpcStream(std::unique_ptr<State> state);
  ~RpcStream();
  RpcStream(const RpcStream&) = delete;
  RpcStream& operator=(const RpcStream&) = delete;

  // Writes `payload.size()` bytes into `payload`.
  using Fill = std::function<absl::Status(absl::Span<char> payload)>;

  // Sends one message: `head`, then `payload_bytes` bytes that `fill` writes straight into the
  // memory gRPC sends from. Returns false if the call is over: ask Finish() why. A failure of
  // `fill` is returned and nothing is sent.
  absl::StatusOr<bool> Write(const std::string& head, int64_t payload_bytes, const Fill& fill);

  // Sends one message: `head`, then `rows`, from where they are. Returns false if the call is over.
  bool Write(const std::string& head, LentRows rows);

  // Sends one message that is complete in itself.
  bool Write(const std::string& message);

  // Says that nothing more will be sent. Returns false if the call is over.
  bool WritesDone();

  // Waits for the next message. Returns false at the end of the stream.
  bool Read();

  // The message that Read() brought, in the pieces gRPC received; valid until the next Read().
  absl::Span<const absl::Span<const char>> message() const;

  // Ends the call and says how it went. Messages that were not read are dropped. At most once.
  absl::Status Finish();

 private:
  std::unique_ptr<State> state_;
};

class RpcChannel {
 public:
  // Does not connect yet; a broker that is not there makes the first call fail.
  static std::shared_ptr<RpcChannel> Create(const std::string& address);

  ~RpcChannel();
  RpcChannel(const RpcChannel&) = delete;
  RpcChannel& operator=(const RpcChannel&) = delete;

  // Sends one message, receives one. `method` is "/package.Service/Method"; errors begin with
  // the last part of it.
  absl::StatusOr<std::string> Unary(const std::string& method, const std::string& request,
                                    int64_t deadline_ms);

  // Starts a streaming call. A broker that is not there shows in the first read or write.
  std::unique_ptr<RpcStream> Open(const std::string& method, int64_t deadline_ms);

 private:
  struct Stub;
  explicit RpcChannel(std::unique_ptr<Stub> stub);

  // Constant after construction; provides its own synchronisation.
  const std::unique_ptr<Stub> stub_;
};

}  // namespace semshare::client

#endif  // SEMSHARE_CLIENT_CPP_RPC_CHANNEL_H_
