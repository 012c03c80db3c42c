// Bulk frames on the wire, without protobuf parsing of their payload: small fields are ordinary
// protobuf, the payload (field 15) is a range of the received slices, or a slice over staging
// memory. Wire-compatible with semshare/v1/cache_broker.proto.
// Thread-safe: pure functions.
#ifndef SEMSHARE_SERVER_RPC_FRAME_CODEC_H_
#define SEMSHARE_SERVER_RPC_FRAME_CODEC_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/match_reader.h"
#include "server/upload.h"

namespace semshare {

// A WriteKvFrame as received. `pieces` point into `slices`.
struct ReceivedFrame {
  std::string upload_id;
  WriteFrame frame;
  std::string source;  // a serialised KvView; empty: none
  int64_t layers = 0;  // that are ready there
  std::vector<grpc::Slice> slices;
  std::vector<std::string_view> pieces;
};

// INVALID_ARGUMENT for bytes that are not a WriteKvFrame. Unknown fields are skipped.
absl::StatusOr<ReceivedFrame> DecodeWriteFrame(const grpc::ByteBuffer& message);

// A ReadKvFrame whose payload is `payload`.
grpc::ByteBuffer EncodeReadFrame(const ReadFrame& frame, grpc::Slice payload);

// A ReadKvFrame that reports progress and carries no rows.
grpc::ByteBuffer EncodeProgressFrame(int layer);

// Parses a small protobuf message from its raw bytes.
template <typename Message>
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, Message* message) {
  std::vector<grpc::Slice> slices;
  std::string flat;
  if (bytes.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) {
      flat.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    if (message->ParseFromString(flat)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError("the request is not a valid protobuf message");
}

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_FRAME_CODEC_H_
