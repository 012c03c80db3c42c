#include "server/rpc/write_stream.h"

#include <cstring>
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

grpc::ByteBuffer ToByteBuffer(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace

WriteStream::WriteStream(Broker* broker, Executor* executor, StreamWatch* watch,
                         grpc::CallbackServerContext* call, grpc::ByteBuffer* response)
    : broker_(broker),
      executor_(executor),
      response_(response),
      ticket_(watch, call, broker->options().upload_timeout_ms, broker->now_ms()) {
  ReadNext();
}

WriteStream::~WriteStream() { DropUpload(); }

void WriteStream::DropUpload() {
  if (upload_ == nullptr) return;
  upload_ = nullptr;
  ++broker_->metrics().puts_dropped;
}

void WriteStream::ReadNext() {
  turns_.fetch_add(1, std::memory_order_release);
  StartRead(&message_);
}

void WriteStream::End(const absl::Status& status) {
  // So that their memory is back when the client hears of it.
  DropUpload();
  region_ = nullptr;
  turns_.fetch_add(1, std::memory_order_release);
  Finish(ToGrpcStatus(status));
}

void WriteStream::OnDone() {
  turns_.load(std::memory_order_acquire);
  delete this;
}

void WriteStream::OnReadDone(bool ok) {
  turns_.load(std::memory_order_acquire);
  ticket_.Touch(broker_->now_ms());
  if (!ok) {
    End(absl::InvalidArgumentError("the stream ended without a frame that commits"));
    return;
  }
  executor_->Submit([this] {
    const absl::StatusOr<bool> committed = Work();
    if (committed.ok() && !*committed) {
      ReadNext();
    } else {
      End(committed.status());
    }
  });
}

absl::StatusOr<bool> WriteStream::Work() {
  SEMSHARE_ASSIGN_OR_RETURN(const ReceivedFrame received, DecodeWriteFrame(message_));
  if (upload_ == nullptr) {
    SEMSHARE_ASSIGN_OR_RETURN(upload_, broker_->TakeUpload(kDefaultTenant, received.upload_id));
  } else if (!received.upload_id.empty()) {
    return absl::InvalidArgumentError("upload_id: belongs in the first frame only");
  }
  if (!received.source.empty()) SEMSHARE_RETURN_IF_ERROR(SetSource(received));
  SEMSHARE_RETURN_IF_ERROR(TakeRows(received));
  if (!received.frame.commit) return false;
  SEMSHARE_RETURN_IF_ERROR(Commit());
  return true;
}

absl::Status WriteStream::SetSource(const ReceivedFrame& received) {
  if (region_ != nullptr) return absl::InvalidArgumentError("source: belongs in the first frame");
  v1::KvView source;
  if (!source.ParseFromString(received.source)) {
    return absl::InvalidArgumentError("source: is not a valid KvView");
  }
  SEMSHARE_ASSIGN_OR_RETURN(region_, broker_->regions()->Find(kDefaultTenant, source.region()));
  SEMSHARE_ASSIGN_OR_RETURN(KvView view, ToKvView("source", source, region_->span()));
  return upload_->SetSource(std::move(view), received.frame.exact);
}

absl::Status WriteStream::TakeRows(const ReceivedFrame& received) {
  int64_t bytes = 0;
  for (const std::string_view piece : received.pieces) bytes += static_cast<int64_t>(piece.size());
  const int64_t limit = broker_->options().limits.max_frame_payload_bytes;
  if (bytes > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat("payload: at most ", limit, " bytes, got ", bytes));
  }
  if (region_ != nullptr && (bytes > 0 || received.frame.tokens > 0)) {
    return absl::InvalidArgumentError("payload: the rows of this upload are in its source");
  }
  Backend* backend = broker_->backend();
  SEMSHARE_ASSIGN_OR_RETURN(Lane lane, backend->AcquireLane(kLaneTimeout));
  if (region_ != nullptr || received.layers > 0) {
    if (region_ != nullptr && received.layers > 0) {
      SEMSHARE_RETURN_IF_ERROR(region_->EnqueueWait(lane));
    }
    SEMSHARE_ASSIGN_OR_RETURN(bytes, upload_->WriteLayers(received.layers, backend, lane));
  } else {
    SEMSHARE_RETURN_IF_ERROR(upload_->Write(received.frame, received.pieces, backend, lane));
  }
  broker_->metrics().put_bytes += static_cast<uint64_t>(bytes);
  return absl::OkStatus();
}

absl::Status WriteStream::Commit() {
  if (!upload_->complete()) return absl::InvalidArgumentError("commit: rows are missing");
  SEMSHARE_ASSIGN_OR_RETURN(const PutResult result, broker_->Commit(std::move(upload_)));
  v1::WriteKvResponse response;
  response.set_reference_id(result.reference.ToBytes());
  response.set_visible(result.visible);
  response.set_durable(result.durable);
  *response_ = ToByteBuffer(response);
  return absl::OkStatus();
}

RegisterStream::RegisterStream(Broker* broker, Executor* executor, StreamWatch* watch,
                               std::atomic<int>* streams, grpc::CallbackServerContext* call,
                               v1::RegisterModelResponse* response)
    : broker_(broker),
      executor_(executor),
      streams_(streams),
      response_(response),
      ticket_(watch, call, broker->options().upload_timeout_ms, broker->now_ms()) {
  if (++*streams_ > kMaxRegistrations) {
    End(absl::ResourceExhaustedError(
        absl::StrCat("all ", kMaxRegistrations, " registrations are in use; retry later")));
    return;
  }
  ReadNext();
}

void RegisterStream::ReadNext() {
  turns_.fetch_add(1, std::memory_order_release);
  StartRead(&message_);
}

void RegisterStream::End(const absl::Status& status) {
  // So that its memory and its place are free when the client hears of the end.
  registration_ = ModelRegistration();
  --*streams_;
  turns_.fetch_add(1, std::memory_order_release);
  Finish(ToGrpcStatus(status));
}

void RegisterStream::OnDone() {
  turns_.load(std::memory_order_acquire);
  delete this;
}

void RegisterStream::OnReadDone(bool ok) {
  turns_.load(std::memory_order_acquire);
  ticket_.Touch(broker_->now_ms());
  executor_->Submit([this, ok] {
    const absl::Status status = ok ? Take() : Register();
    if (ok && status.ok()) {
      ReadNext();
    } else {
      End(status);
    }
  });
}

absl::Status RegisterStream::TakeFloats(const char* field, const std::string& bytes, int64_t limit,
                                        std::vector<float>* values) {
  const size_t count = bytes.size() / sizeof(float);
  const int64_t frame_limit = broker_->options().limits.max_frame_payload_bytes;
  if (static_cast<int64_t>(bytes.size()) > frame_limit) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": at most ", frame_limit, " bytes a frame, got ", bytes.size()));
  }
  if (bytes.size() % sizeof(float) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": not whole float32 numbers"));
  }
  if (static_cast<int64_t>(values->size() + count) > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": more than the ", limit, " numbers that the spec names"));
  }
  if (values->empty()) values->reserve(limit);
  const size_t at = values->size();
  values->resize(at + count);
  std::memcpy(values->data() + at, bytes.data(), bytes.size());
  return absl::OkStatus();
}

absl::Status RegisterStream::Take() {
  const Limits& limits = broker_->options().limits;
  if (!has_spec_) {
    if (!message_.has_spec()) return absl::InvalidArgumentError("spec: must be the first frame");
    SEMSHARE_ASSIGN_OR_RETURN(registration_.info, ToModelInfo(message_.spec(), limits));
    const int64_t table_bytes = registration_.info.vocab_size * registration_.info.embedding_width *
                                static_cast<int64_t>(sizeof(float));
    if (table_bytes > broker_->options().model_memory_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("embedding_table: ", table_bytes, " bytes are above model_memory_bytes"));
    }
    has_spec_ = true;
    return absl::OkStatus();
  }
  const ModelInfo& info = registration_.info;
  switch (message_.part_case()) {
    case v1::RegisterModelFrame::kEmbeddingTable:
      return TakeFloats("embedding_table", message_.embedding_table(),
                        info.vocab_size * info.embedding_width, &registration_.table);
    case v1::RegisterModelFrame::kTokenWeights:
      return TakeFloats("token_weights", message_.token_weights(), info.vocab_size,
                        &registration_.weights);
    case v1::RegisterModelFrame::kProbe:
      if (static_cast<int64_t>(registration_.probe.size()) >= limits.max_probe_samples) {
        return absl::InvalidArgumentError(
            absl::StrCat("probe: at most ", limits.max_probe_samples, " samples"));
      }
      registration_.probe.push_back(
          {message_.probe().token_id(), message_.probe().position(), message_.probe().rows()});
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError("spec: belongs in the first frame only");
  }
}

absl::Status RegisterStream::Register() {
  if (!has_spec_) return absl::InvalidArgumentError("spec: the stream was empty");
  SEMSHARE_ASSIGN_OR_RETURN(const RegisterResult result,
                            broker_->RegisterModel(kDefaultTenant, registration_));
  response_->set_created(result.created);
  response_->set_probe_error(result.probe_error);
  return absl::OkStatus();
}

}  // namespace semshare
