#include "client/cpp/frame_codec.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace semshare::client {
namespace {

// Protobuf's wire types.
constexpr uint64_t kVarint = 0;
constexpr uint64_t kFixed64 = 1;
constexpr uint64_t kLengthDelimited = 2;
constexpr uint64_t kFixed32 = 5;

constexpr int kMaxVarintBytes = 10;

absl::Status Malformed(const char* what) {
  return absl::InternalError(absl::StrCat("the broker sent a malformed frame: ", what));
}

absl::StatusOr<uint64_t> ReadVarint(PieceReader* reader) {
  uint64_t value = 0;
  for (int i = 0; i < kMaxVarintBytes && reader->left() > 0; ++i) {
    char byte = 0;
    reader->Copy(&byte, 1);
    value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) return value;
  }
  return Malformed("a varint without end");
}

// Steps over one field that this revision of the contract does not know.
absl::Status SkipField(uint64_t wire_type, PieceReader* reader) {
  uint64_t bytes = 0;
  switch (wire_type) {
    case kVarint:
      return ReadVarint(reader).status();
    case kFixed64:
      bytes = 8;
      break;
    case kFixed32:
      bytes = 4;
      break;
    case kLengthDelimited: {
      absl::StatusOr<uint64_t> length = ReadVarint(reader);
      if (!length.ok()) return length.status();
      bytes = *length;
      break;
    }
    default:
      return Malformed("an unknown wire type");
  }
  if (bytes > static_cast<uint64_t>(reader->left())) return Malformed("a field is cut off");
  reader->Skip(static_cast<int64_t>(bytes));
  return absl::OkStatus();
}

absl::Status ReadPayload(PieceReader* reader, KvFrame* frame) {
  absl::StatusOr<uint64_t> length = ReadVarint(reader);
  if (!length.ok()) return length.status();
  if (*length > static_cast<uint64_t>(reader->left())) return Malformed("the payload is cut off");
  frame->payload_bytes = static_cast<int64_t>(*length);
  frame->payload = reader->Take(frame->payload_bytes);
  return absl::OkStatus();
}

// Where a small field of ReadKvFrame goes, or null if it is none.
uint32_t* NumberField(uint64_t number, KvFrame* frame) {
  switch (number) {
    case v1::ReadKvFrame::kLayerFieldNumber:
      return &frame->range.layer;
    case v1::ReadKvFrame::kPlaneFieldNumber:
      return &frame->range.plane;
    case v1::ReadKvFrame::kFirstRowFieldNumber:
      return &frame->range.begin;
    case v1::ReadKvFrame::kRowsFieldNumber:
      return &frame->range.count;
    default:
      return nullptr;
  }
}

void AppendVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

}  // namespace

absl::StatusOr<KvFrame> ParseReadKvFrame(absl::Span<const absl::Span<const char>> message) {
  PieceReader reader(message);
  KvFrame frame;
  while (reader.left() > 0) {
    absl::StatusOr<uint64_t> tag = ReadVarint(&reader);
    if (!tag.ok()) return tag.status();
    const uint64_t number = *tag >> 3;
    const uint64_t wire_type = *tag & 7;
    if (number == 0 || *tag > UINT32_MAX) return Malformed("a field number out of range");
    uint32_t* const field = NumberField(number, &frame);
    absl::Status status;
    if (field != nullptr && wire_type == kVarint) {
      absl::StatusOr<uint64_t> value = ReadVarint(&reader);
      if (value.ok() && *value > UINT32_MAX) return Malformed("a number above 32 bits");
      if (value.ok()) *field = static_cast<uint32_t>(*value);
      status = value.status();
    } else if (number == v1::ReadKvFrame::kPayloadFieldNumber && wire_type == kLengthDelimited) {
      status = ReadPayload(&reader, &frame);
    } else {
      status = SkipField(wire_type, &reader);
    }
    if (!status.ok()) return status;
  }
  return frame;
}

std::string WriteKvFrameHead(const v1::WriteKvFrame& frame, int64_t payload_bytes) {
  std::string head = frame.SerializeAsString();
  if (payload_bytes > 0) {
    AppendVarint(v1::WriteKvFrame::kPayloadFieldNumber << 3 | kLengthDelimited, &head);
    AppendVarint(static_cast<uint64_t>(payload_bytes), &head);
  }
  return head;
}

}  // namespace semshare::client
