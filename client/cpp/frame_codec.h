// Bulk frames on the wire without a protobuf parse of their payload: the small fields of a
// ReadKvFrame are read by hand out of the received slices, and the payload stays where gRPC put it;
// of a WriteKvFrame only what stands before the payload is built here.
//
// Thread-safe: pure functions. Ownership: a KvFrame points into the message it was parsed from.
#ifndef SEMSHARE_CLIENT_CPP_FRAME_CODEC_H_
#define SEMSHARE_CLIENT_CPP_FRAME_CODEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cpp/kv_rows.h"
#include "semshare/v1/cache_broker.pb.h"

namespace semshare::client {

struct KvFrame {
  RowRange range;
  std::vector<absl::Span<const char>> payload;
  int64_t payload_bytes = 0;
};

// Reads one serialised v1::ReadKvFrame. Fields may come in any order and unknown ones are skipped,
// as protobuf wants it; bytes that are no message become INTERNAL.
absl::StatusOr<KvFrame> ParseReadKvFrame(absl::Span<const absl::Span<const char>> message);

// What stands before the payload of a serialised v1::WriteKvFrame: `frame`'s small fields and, if
// there is a payload, its tag and length. REQUIRES: frame.payload() is empty.
std::string WriteKvFrameHead(const v1::WriteKvFrame& frame, int64_t payload_bytes);

}  // namespace semshare::client

#endif  // SEMSHARE_CLIENT_CPP_FRAME_CODEC_H_
