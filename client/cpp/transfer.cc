// The streaming calls of Client: models, rows to the broker, rows from it.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/answer_checks.h"
#include "client/cpp/client.h"
#include "client/cpp/frame_codec.h"
#include "client/cpp/rpc_channel.h"
#include "client/cpp/unary_call.h"

namespace semshare::client {
namespace {

// Splits floats into frames. Returns false when the call is over.
template <typename Set>
bool SendFloats(absl::Span<const float> values, RpcStream* stream, const Set& set) {
  constexpr size_t kFloatsPerFrame = kMaxFramePayloadBytes / sizeof(float);
  for (size_t begin = 0; begin < values.size(); begin += kFloatsPerFrame) {
    const absl::Span<const float> part = values.subspan(begin, kFloatsPerFrame);
    v1::RegisterModelFrame frame;
    set(std::string(reinterpret_cast<const char*>(part.data()), part.size() * sizeof(float)),
        &frame);
    if (!stream->Write(frame.SerializeAsString())) return false;
  }
  return true;
}

bool SendModel(const v1::ModelSpec& spec, const ModelData& data, RpcStream* stream) {
  v1::RegisterModelFrame first;
  *first.mutable_spec() = spec;
  if (!stream->Write(first.SerializeAsString())) return false;
  if (!SendFloats(data.embedding_table, stream, [](std::string bytes, v1::RegisterModelFrame* to) {
        to->set_embedding_table(std::move(bytes));
      })) {
    return false;
  }
  if (!SendFloats(data.token_weights, stream, [](std::string bytes, v1::RegisterModelFrame* to) {
        to->set_token_weights(std::move(bytes));
      })) {
    return false;
  }
  for (const v1::ProbeSample& probe : data.probes) {
    v1::RegisterModelFrame frame;
    *frame.mutable_probe() = probe;
    if (!stream->Write(frame.SerializeAsString())) return false;
  }
  return stream->WritesDone();
}

// The one answer of a client stream. The broker may answer before everything is sent.
template <typename Response>
absl::StatusOr<Response> TakeAnswer(RpcStream* stream) {
  std::string bytes;
  const bool answered = stream->Read();
  if (answered) {
    PieceReader reader(stream->message());
    bytes.resize(static_cast<size_t>(reader.left()));
    reader.Copy(bytes.data(), reader.left());
  }
  absl::Status status = stream->Finish();
  if (!status.ok()) return status;
  Response response;
  if (!answered || !response.ParseFromString(bytes)) {
    return absl::InternalError("the broker's answer to a stream is missing or does not parse");
  }
  return response;
}

// Sends the frames of one upload, one at a time.
class RowSender {
 public:
  RowSender(const v1::BeginPutResponse& upload, const KvShape& shape, const RowSource& source,
            RpcStream* stream)
      : upload_(upload), shape_(shape), source_(source), stream_(stream) {
    frame_.set_upload_id(upload.upload_id());
    frame_.set_exact(true);
    int64_t missing_tokens = 0;
    for (const v1::TokenRange& range : upload.missing())
      missing_tokens += range.end() - range.begin();
    left_bytes_ = missing_tokens * shape.BytesPerToken();
  }

  int64_t left_bytes() const { return left_bytes_; }

  // False if the broker ended the call early; a failure is the source's own.
  absl::StatusOr<bool> SendAll() {
    if (left_bytes_ == 0) {
      frame_.set_commit(true);
      return stream_->Write(frame_.SerializeAsString()) && stream_->WritesDone();
    }
    for (uint32_t layer = 0; layer < shape_.row_bytes.size(); ++layer) {
      for (uint32_t plane = 0; plane < shape_.row_bytes[layer].size(); ++plane) {
        for (const v1::TokenRange& range : upload_.missing()) {
          absl::StatusOr<bool> open =
              SendRange({layer, plane, range.begin(), range.end() - range.begin()});
          if (!open.ok() || !*open) return open;
        }
      }
    }
    return stream_->WritesDone();
  }

 private:
  absl::StatusOr<bool> SendRange(const RowRange& range) {
    const int64_t row_bytes = shape_.row_bytes[range.layer][range.plane];
    const auto rows_per_frame = static_cast<uint32_t>(kMaxFramePayloadBytes / row_bytes);
    for (uint32_t done = 0; done < range.count; done += rows_per_frame) {
      const RowRange part = {range.layer, range.plane, range.begin + done,
                             std::min(rows_per_frame, range.count - done)};
      absl::StatusOr<bool> open = SendFrame(part, part.count * row_bytes);
      if (!open.ok() || !*open) return open;
    }
    return true;
  }

  absl::StatusOr<bool> SendFrame(const RowRange& range, int64_t payload_bytes) {
    frame_.set_layer(range.layer);
    frame_.set_plane(range.plane);
    frame_.set_token_begin(range.begin);
    frame_.set_tokens(range.count);
    left_bytes_ -= payload_bytes;
    frame_.set_commit(left_bytes_ == 0);
    absl::StatusOr<bool> open =
        SendPayload(WriteKvFrameHead(frame_, payload_bytes), range, payload_bytes);
    // What only the first frame carries.
    frame_.clear_upload_id();
    frame_.clear_exact();
    return open;
  }

  absl::StatusOr<bool> SendPayload(const std::string& head, const RowRange& range, int64_t bytes) {
    if (source_.lend != nullptr) {
      absl::StatusOr<LentRows> lent = source_.lend(range, bytes);
      if (!lent.ok()) return lent.status();
      if (!lent->bytes.empty()) return stream_->Write(head, *std::move(lent));
    }
    return stream_->Write(head, bytes,
                          [&](absl::Span<char> rows) { return source_.fill(range, rows); });
  }

  const v1::BeginPutResponse& upload_;
  const KvShape& shape_;
  const RowSource& source_;
  RpcStream* const stream_;
  v1::WriteKvFrame frame_;
  int64_t left_bytes_ = 0;
};

// The end of a put: `result` with what the broker says of it.
absl::StatusOr<PutResult> TakePutAnswer(const v1::BeginPutResponse& upload, PutResult result,
                                        RpcStream* stream) {
  auto answer = TakeAnswer<v1::WriteKvResponse>(stream);
  if (!answer.ok()) return answer.status();
  if (answer->reference_id() != upload.reference_id()) {
    return absl::InternalError("WriteKv: the broker stored another reference than it promised");
  }
  result.reference_id = answer->reference_id();
  result.visible = answer->visible();
  result.durable = answer->durable();
  return result;
}

absl::Status CheckShape(const KvShape& shape) {
  if (shape.row_bytes.empty()) return absl::InvalidArgumentError("shape: no layers");
  for (size_t layer = 0; layer < shape.row_bytes.size(); ++layer) {
    if (shape.row_bytes[layer].empty()) {
      return absl::InvalidArgumentError(absl::StrCat("shape: layer ", layer, " has no planes"));
    }
    for (const int64_t row_bytes : shape.row_bytes[layer]) {
      if (row_bytes <= 0 || row_bytes > kMaxFramePayloadBytes) {
        return absl::InvalidArgumentError(absl::StrCat("shape: layer ", layer, " has rows of ",
                                                       row_bytes, " bytes, not 1..",
                                                       kMaxFramePayloadBytes));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::RegisterModelResponse> Client::RegisterModel(const v1::ModelSpec& spec,
                                                                const ModelData& data) const {
  std::unique_ptr<RpcStream> stream =
      channel_->Open(std::string(kBrokerService) + "RegisterModel", deadlines_.transfer_ms);
  SendModel(spec, data, stream.get());
  return TakeAnswer<v1::RegisterModelResponse>(stream.get());
}

absl::StatusOr<PutResult> Client::Put(const v1::BeginPutRequest& request, const KvShape& shape,
                                      const RowSource& source) const {
  absl::Status status = CheckShape(shape);
  if (!status.ok()) return status;
  auto upload = UnaryCall<v1::BeginPutResponse>(
      channel_.get(), std::string(kBrokerService) + "BeginPut", request, deadlines_.control_ms);
  if (!upload.ok()) return upload.status();
  status = CheckMissing(*upload, static_cast<uint32_t>(request.token_ids_size()));
  if (!status.ok()) return status;
  if (upload->upload_id().empty()) {
    return PutResult{upload->reference_id(), upload->visible(), upload->durable()};
  }
  return SendRows(*upload, shape, source);
}

absl::StatusOr<PutResult> Client::SendRows(const v1::BeginPutResponse& upload, const KvShape& shape,
                                           const RowSource& source) const {
  std::unique_ptr<RpcStream> stream =
      channel_->Open(std::string(kBrokerService) + "WriteKv", deadlines_.transfer_ms);
  RowSender sender(upload, shape, source, stream.get());
  PutResult result;
  result.sent_bytes = sender.left_bytes();
  result.sent_tokens = static_cast<uint32_t>(result.sent_bytes / shape.BytesPerToken());
  absl::StatusOr<bool> sent = sender.SendAll();
  // Dropping the stream without a commit undoes the upload.
  if (!sent.ok()) return sent.status();
  return TakePutAnswer(upload, std::move(result), stream.get());
}

absl::StatusOr<PutResult> Client::PutFrom(const v1::BeginPutRequest& request,
                                          const v1::KvView& source, uint32_t layers) const {
  auto upload = UnaryCall<v1::BeginPutResponse>(
      channel_.get(), std::string(kBrokerService) + "BeginPut", request, deadlines_.control_ms);
  if (!upload.ok()) return upload.status();
  absl::Status status = CheckMissing(*upload, static_cast<uint32_t>(request.token_ids_size()));
  if (!status.ok()) return status;
  if (upload->upload_id().empty()) {
    return PutResult{upload->reference_id(), upload->visible(), upload->durable()};
  }
  v1::WriteKvFrame frame;
  frame.set_upload_id(upload->upload_id());
  frame.set_exact(true);
  *frame.mutable_source() = source;
  frame.set_layers(layers);
  frame.set_commit(true);
  std::unique_ptr<RpcStream> stream =
      channel_->Open(std::string(kBrokerService) + "WriteKv", deadlines_.transfer_ms);
  if (stream->Write(frame.SerializeAsString())) stream->WritesDone();
  PutResult result;
  for (const v1::TokenRange& range : upload->missing()) {
    result.sent_tokens += range.end() - range.begin();
  }
  return TakePutAnswer(*upload, std::move(result), stream.get());
}

absl::Status Client::ReadInto(const Lease& lease, const ReadOptions& options,
                              const v1::KvView& target, const LayerSink& progress) const {
  if (!lease.held()) return absl::FailedPreconditionError("read: no lease is held");
  v1::ReadKvRequest request;
  request.set_lease_id(lease.match().lease_id());
  request.set_layer_begin(options.layer_begin);
  request.set_layer_end(options.layer_end);
  request.set_transport(v1::TRANSPORT_SHARED_MEMORY);
  *request.mutable_target() = target;
  std::unique_ptr<RpcStream> stream =
      channel_->Open(std::string(kBrokerService) + "ReadKv", deadlines_.transfer_ms);
  if (stream->Write(request.SerializeAsString())) stream->WritesDone();
  int64_t reached = int64_t{options.layer_begin} - 1;
  while (stream->Read()) {
    absl::StatusOr<KvFrame> frame = ParseReadKvFrame(stream->message());
    if (!frame.ok()) return frame.status();
    if (frame->payload_bytes > 0 || frame->range.layer <= reached ||
        (options.layer_end > 0 && frame->range.layer >= options.layer_end)) {
      return absl::InternalError(
          absl::StrCat("ReadKv: progress of layer ", frame->range.layer, " is out of order"));
    }
    reached = frame->range.layer;
    progress(frame->range.layer);
  }
  absl::Status status = stream->Finish();
  if (!status.ok()) return status;
  const bool complete = options.layer_end > 0 ? reached == int64_t{options.layer_end} - 1
                                              : reached >= int64_t{options.layer_begin};
  if (!complete) return absl::InternalError("ReadKv: the stream ended before the last layer");
  return absl::OkStatus();
}

absl::Status Client::Read(const Lease& lease, const ReadOptions& options,
                          const RowSink& sink) const {
  if (!lease.held()) return absl::FailedPreconditionError("read: no lease is held");
  v1::ReadKvRequest request;
  request.set_lease_id(lease.match().lease_id());
  request.set_layer_begin(options.layer_begin);
  request.set_layer_end(options.layer_end);
  request.set_transport(v1::TRANSPORT_INLINE);
  request.set_max_frame_payload_bytes(options.max_frame_payload_bytes);
  std::unique_ptr<RpcStream> stream =
      channel_->Open(std::string(kBrokerService) + "ReadKv", deadlines_.transfer_ms);
  if (stream->Write(request.SerializeAsString())) stream->WritesDone();
  FrameOrder order(
      {options.layer_begin, options.layer_end, lease.match().matched_tokens(), options.shape});
  while (stream->Read()) {
    absl::StatusOr<KvFrame> frame = ParseReadKvFrame(stream->message());
    if (!frame.ok()) return frame.status();
    absl::Status status = order.Check(*frame);
    if (!status.ok()) return status;
    status = sink(frame->range, frame->payload);
    if (!status.ok()) return status;
  }
  absl::Status status = stream->Finish();
  if (!status.ok()) return status;
  return order.CheckEnd();
}

}  // namespace semshare::client
