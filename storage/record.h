// Record: the bytes of one chunk on disk, verified whole on every read. Internal to storage/.
//
//   offset  bytes  field (integers are little-endian)
//        0      8  magic "SEMSHCHK"
//        8      4  version, 1
//       12      1  codec of the payload (kernels/backend.h Codec; values are frozen)
//       13      1  zero
//       14      2  tokens, 1..64
//       16     16  namespace id
//       32     16  chunk id
//       48     16  parent chunk id, zero for the first chunk of a prompt
//       64      8  payload bytes P
//       72      4  block bytes, 262144
//       76      4  blocks N = ceil(P / 262144)
//       80    8 N  XXH3-64 of each block of the payload
//   80+8N       8  XXH3-64 of all bytes before it
//   88+8N       P  payload: the chunk as in the arena (kv_layout.h)
//
// The namespace id stands for the model's fingerprint, dtype and layout included. Any flipped bit,
// any missing or additional byte breaks a checksum or the length.
//
// Thread-safe: values and pure functions.
#ifndef SEMSHARE_STORAGE_RECORD_H_
#define SEMSHARE_STORAGE_RECORD_H_

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "storage/ids.h"

namespace semshare {

inline constexpr int64_t kRecordBlockBytes = int64_t{256} << 10;

// What a record says of its payload.
struct RecordInfo {
  NamespaceId ns;
  ChunkId id;
  ChunkId parent;
  uint16_t tokens = 0;
  Codec codec = Codec::kRaw;
  int64_t payload_bytes = 0;

  bool operator==(const RecordInfo&) const = default;
};

// Bytes before the payload.
int64_t RecordHeaderBytes(int64_t payload_bytes);

// Writes RecordHeaderBytes(info.payload_bytes) bytes to `header`. `payload` has
// info.payload_bytes bytes; the record is the header followed by the payload.
void WriteRecordHeader(const RecordInfo& info, const char* payload, char* header);

// The payload within `record`. DATA_LOSS, saying what is wrong, if the record is not exactly what
// was written for `expected`.
absl::StatusOr<std::string_view> VerifyRecord(std::string_view record, const RecordInfo& expected);

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_RECORD_H_
