#include "client/cpp/rpc_channel.h"

#include <grpc/slice.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc_status.h"

namespace semshare::client {
namespace {

// A restarted broker is found again soon.
constexpr int kFirstReconnectMs = 100;
constexpr int kMaxReconnectMs = 1000;

void SetDeadline(int64_t deadline_ms, grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(deadline_ms));
}

// Blocks until the one operation in flight has ended.
bool Wait(grpc::CompletionQueue* queue) {
  void* tag = nullptr;
  bool ok = false;
  return queue->Next(&tag, &ok) && ok;
}

void Drain(grpc::CompletionQueue* queue) {
  queue->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) {
  }
}

// What was attempted goes in front of gRPC's own message.
absl::Status Describe(const std::string& method, const grpc::Status& status) {
  absl::Status plain = FromGrpcStatus(status);
  if (plain.ok()) return plain;
  return absl::Status(plain.code(),
                      absl::StrCat(method.substr(method.rfind('/') + 1), ": ", plain.message()));
}

grpc::Slice CopyToSlice(const std::string& bytes) { return {bytes.data(), bytes.size()}; }

}  // namespace

struct RpcStream::State {
  std::string method;
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  bool started = false;
  bool finished = false;
  // The message read last; pieces point into slices.
  std::vector<grpc::Slice> slices;
  std::vector<absl::Span<const char>> pieces;

  bool Write(const grpc::Slice* parts, size_t count) {
    call->Write(grpc::ByteBuffer(parts, count), nullptr);
    return Wait(&queue);
  }
};

RpcStream::RpcStream(std::unique_ptr<State> state) : state_(std::move(state)) {}

RpcStream::~RpcStream() {
  if (!state_->finished) {
    state_->context.TryCancel();
    grpc::Status ignored;
    state_->call->Finish(&ignored, nullptr);
    Wait(&state_->queue);
  }
  Drain(&state_->queue);
}

absl::StatusOr<bool> RpcStream::Write(const std::string& head, int64_t payload_bytes,
                                      const Fill& fill) {
  if (!state_->started) return false;
  grpc_slice payload = grpc_slice_malloc(static_cast<size_t>(payload_bytes));
  const absl::Status filled = fill(absl::MakeSpan(
      reinterpret_cast<char*>(GRPC_SLICE_START_PTR(payload)), GRPC_SLICE_LENGTH(payload)));
  // Wrapped only now: a slice of a few bytes lives in the struct itself and is copied with it.
  const grpc::Slice parts[] = {CopyToSlice(head), grpc::Slice(payload, grpc::Slice::STEAL_REF)};
  if (!filled.ok()) return filled;
  return state_->Write(parts, 2);
}

bool RpcStream::Write(const std::string& head, LentRows rows) {
  if (!state_->started) return false;
  using Owner = std::shared_ptr<const void>;
  // gRPC never writes to a slice that it sends.
  grpc_slice payload = grpc_slice_new_with_user_data(
      const_cast<char*>(rows.bytes.data()), rows.bytes.size(),
      [](void* owner) { delete static_cast<Owner*>(owner); }, new Owner(std::move(rows.owner)));
  const grpc::Slice parts[] = {CopyToSlice(head), grpc::Slice(payload, grpc::Slice::STEAL_REF)};
  return state_->Write(parts, 2);
}

bool RpcStream::Write(const std::string& message) {
  const grpc::Slice slice = CopyToSlice(message);
  return state_->started && state_->Write(&slice, 1);
}

bool RpcStream::WritesDone() {
  if (!state_->started) return false;
  state_->call->WritesDone(nullptr);
  return Wait(&state_->queue);
}

bool RpcStream::Read() {
  state_->slices.clear();
  state_->pieces.clear();
  if (!state_->started) return false;
  grpc::ByteBuffer buffer;
  state_->call->Read(&buffer, nullptr);
  if (!Wait(&state_->queue) || !buffer.Dump(&state_->slices).ok()) return false;
  for (const grpc::Slice& slice : state_->slices) {
    state_->pieces.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return true;
}

absl::Span<const absl::Span<const char>> RpcStream::message() const { return state_->pieces; }

absl::Status RpcStream::Finish() {
  // The status comes after the last message, so all of them have to be taken.
  while (Read()) {
  }
  grpc::Status status;
  state_->call->Finish(&status, nullptr);
  Wait(&state_->queue);
  state_->finished = true;
  return Describe(state_->method, status);
}

struct RpcChannel::Stub {
  explicit Stub(std::shared_ptr<grpc::Channel> channel) : generic(std::move(channel)) {}
  grpc::GenericStub generic;
};

RpcChannel::RpcChannel(std::unique_ptr<Stub> stub) : stub_(std::move(stub)) {}
RpcChannel::~RpcChannel() = default;

std::shared_ptr<RpcChannel> RpcChannel::Create(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectMs);
  // A broker is near its workers; what a proxy variable says is meant for the web.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  return std::shared_ptr<RpcChannel>(new RpcChannel(std::make_unique<Stub>(std::move(channel))));
}

absl::StatusOr<std::string> RpcChannel::Unary(const std::string& method, const std::string& request,
                                              int64_t deadline_ms) {
  grpc::ClientContext context;
  SetDeadline(deadline_ms, &context);
  grpc::CompletionQueue queue;
  const grpc::Slice slice = CopyToSlice(request);
  auto call =
      stub_->generic.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&slice, 1), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  Wait(&queue);
  Drain(&queue);
  if (!status.ok()) return Describe(method, status);
  std::string bytes;
  std::vector<grpc::Slice> slices;
  if (!response.Dump(&slices).ok()) return absl::InternalError(absl::StrCat(method, ": no answer"));
  for (const grpc::Slice& part : slices) {
    bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  return bytes;
}

std::unique_ptr<RpcStream> RpcChannel::Open(const std::string& method, int64_t deadline_ms) {
  auto state = std::make_unique<RpcStream::State>();
  state->method = method;
  SetDeadline(deadline_ms, &state->context);
  state->call = stub_->generic.PrepareCall(&state->context, method, &state->queue);
  state->call->StartCall(nullptr);
  state->started = Wait(&state->queue);
  return std::make_unique<RpcStream>(std::move(state));
}

}  // namespace semshare::client
