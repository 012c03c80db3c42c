#include "server/rpc/frame_codec.h"

#include <cstdint>
#include <utility>

#include "kernels/base/status_macros.h"
#include "semshare/v1/cache_broker.pb.h"

namespace semshare {
namespace {

// Protobuf wire types.
constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kLengthDelimited = 2;
constexpr uint32_t kFixed32 = 5;
constexpr uint32_t kPayloadField = 15;
constexpr uint64_t kMaxUploadIdBytes = 64;
constexpr uint64_t kMaxSourceBytes = 4 << 20;  // a message's limit

// Reads across slice borders.
class SliceReader {
 public:
  explicit SliceReader(const std::vector<grpc::Slice>& slices) : slices_(slices) { Settle(); }

  bool done() const { return slice_ == slices_.size(); }

  absl::StatusOr<uint64_t> Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (done()) return Malformed();
      const uint8_t byte = slices_[slice_].begin()[at_];
      ++at_;
      Settle();
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if ((byte & 128) == 0) return value;
    }
    return Malformed();
  }

  // The next `bytes` bytes as views of the slices.
  absl::StatusOr<std::vector<std::string_view>> Take(uint64_t bytes) {
    std::vector<std::string_view> pieces;
    while (bytes > 0) {
      if (done()) return Malformed();
      const uint64_t step = std::min<uint64_t>(bytes, slices_[slice_].size() - at_);
      pieces.emplace_back(reinterpret_cast<const char*>(slices_[slice_].begin()) + at_, step);
      at_ += step;
      bytes -= step;
      Settle();
    }
    return pieces;
  }

  static absl::Status Malformed() {
    return absl::InvalidArgumentError("the frame is not a valid WriteKvFrame");
  }

 private:
  void Settle() {
    while (slice_ < slices_.size() && at_ == slices_[slice_].size()) {
      ++slice_;
      at_ = 0;
    }
  }

  const std::vector<grpc::Slice>& slices_;
  size_t slice_ = 0;
  size_t at_ = 0;
};

absl::Status SetNumber(uint32_t field, uint64_t value, ReceivedFrame* received) {
  WriteFrame* frame = &received->frame;
  if (field >= 3 && field <= 9 && field != 7 && value > UINT32_MAX) return SliceReader::Malformed();
  switch (field) {
    case 2:
      frame->exact = value != 0;
      break;
    case 3:
      frame->layer = static_cast<int64_t>(value);
      break;
    case 4:
      frame->plane = static_cast<int64_t>(value);
      break;
    case 5:
      frame->token_begin = static_cast<int64_t>(value);
      break;
    case 6:
      frame->tokens = static_cast<int64_t>(value);
      break;
    case 7:
      frame->commit = value != 0;
      break;
    case 9:
      received->layers = static_cast<int64_t>(value);
      break;
    default:
      break;  // unknown: a newer client
  }
  return absl::OkStatus();
}

absl::Status SetText(const std::vector<std::string_view>& pieces, uint64_t bytes, uint64_t limit,
                     std::string* text) {
  if (bytes > limit) return SliceReader::Malformed();
  text->clear();
  for (const std::string_view piece : pieces) *text += piece;
  return absl::OkStatus();
}

absl::Status DecodeField(SliceReader* reader, ReceivedFrame* received) {
  SEMSHARE_ASSIGN_OR_RETURN(const uint64_t tag, reader->Varint());
  const auto field = static_cast<uint32_t>(tag >> 3);
  switch (tag & 7) {
    case kVarint: {
      SEMSHARE_ASSIGN_OR_RETURN(const uint64_t value, reader->Varint());
      return SetNumber(field, value, received);
    }
    case kFixed64:
      return reader->Take(8).status();
    case kFixed32:
      return reader->Take(4).status();
    case kLengthDelimited: {
      SEMSHARE_ASSIGN_OR_RETURN(const uint64_t bytes, reader->Varint());
      SEMSHARE_ASSIGN_OR_RETURN(std::vector<std::string_view> pieces, reader->Take(bytes));
      if (field == kPayloadField) {
        received->pieces = std::move(pieces);
        return absl::OkStatus();
      }
      if (field == 1) return SetText(pieces, bytes, kMaxUploadIdBytes, &received->upload_id);
      if (field == 8) return SetText(pieces, bytes, kMaxSourceBytes, &received->source);
      return absl::OkStatus();  // unknown: a newer client
    }
    default:
      return SliceReader::Malformed();
  }
}

}  // namespace

absl::StatusOr<ReceivedFrame> DecodeWriteFrame(const grpc::ByteBuffer& message) {
  ReceivedFrame received;
  if (!message.Dump(&received.slices).ok()) return SliceReader::Malformed();
  SliceReader reader(received.slices);
  while (!reader.done()) SEMSHARE_RETURN_IF_ERROR(DecodeField(&reader, &received));
  return received;
}

grpc::ByteBuffer EncodeReadFrame(const ReadFrame& frame, grpc::Slice payload) {
  v1::ReadKvFrame header;
  header.set_layer(static_cast<uint32_t>(frame.layer));
  header.set_plane(static_cast<uint32_t>(frame.plane));
  header.set_first_row(static_cast<uint32_t>(frame.first_row));
  header.set_rows(static_cast<uint32_t>(frame.rows));
  std::string bytes = header.SerializeAsString();
  bytes.push_back(static_cast<char>(kPayloadField << 3 | kLengthDelimited));
  uint64_t length = payload.size();
  while (length >= 128) {
    bytes.push_back(static_cast<char>(length | 128));
    length >>= 7;
  }
  bytes.push_back(static_cast<char>(length));
  const grpc::Slice slices[2] = {grpc::Slice(bytes), std::move(payload)};
  return grpc::ByteBuffer(slices, 2);
}

grpc::ByteBuffer EncodeProgressFrame(int layer) {
  v1::ReadKvFrame frame;
  frame.set_layer(static_cast<uint32_t>(layer));
  const grpc::Slice slice(frame.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace semshare
