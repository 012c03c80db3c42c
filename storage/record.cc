#include "storage/record.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "storage/bytes.h"

namespace semshare {
namespace {

constexpr std::string_view kMagic = "SEMSHCHK";
// Frozen: a format that differs in any way gets the next number.
constexpr uint32_t kVersion = 1;
constexpr int64_t kFixedBytes = 80;
constexpr int64_t kChecksumBytes = 8;

int64_t BlockCount(int64_t payload_bytes) {
  return (payload_bytes + kRecordBlockBytes - 1) / kRecordBlockBytes;
}

uint64_t Checksum(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::string_view Block(std::string_view payload, int64_t index) {
  return payload.substr(static_cast<size_t>(index * kRecordBlockBytes),
                        static_cast<size_t>(kRecordBlockBytes));
}

absl::Status Bad(const RecordInfo& expected, std::string_view what) {
  return absl::DataLossError(
      absl::StrCat("record of chunk ", expected.id.ToHex(), ": ", std::string(what)));
}

}  // namespace

int64_t RecordHeaderBytes(int64_t payload_bytes) {
  return kFixedBytes + 8 * BlockCount(payload_bytes) + kChecksumBytes;
}

void WriteRecordHeader(const RecordInfo& info, const char* payload, char* header) {
  const std::string_view bytes(payload, static_cast<size_t>(info.payload_bytes));
  ByteWriter writer;
  writer.Reserve(static_cast<size_t>(RecordHeaderBytes(info.payload_bytes)));
  writer.Raw(kMagic);
  writer.U32(kVersion);
  writer.U8(static_cast<uint8_t>(info.codec));
  writer.U8(0);
  writer.U16(info.tokens);
  writer.Id(info.ns);
  writer.Id(info.id);
  writer.Id(info.parent);
  writer.I64(info.payload_bytes);
  writer.U32(static_cast<uint32_t>(kRecordBlockBytes));
  const int64_t blocks = BlockCount(info.payload_bytes);
  writer.U32(static_cast<uint32_t>(blocks));
  for (int64_t i = 0; i < blocks; ++i) writer.U64(Checksum(Block(bytes, i)));
  writer.U64(Checksum(writer.bytes()));
  SEMSHARE_CHECK(static_cast<int64_t>(writer.bytes().size()) ==
                 RecordHeaderBytes(info.payload_bytes));
  std::memcpy(header, writer.bytes().data(), writer.bytes().size());
}

absl::StatusOr<std::string_view> VerifyRecord(std::string_view record, const RecordInfo& expected) {
  const auto header_bytes = static_cast<size_t>(RecordHeaderBytes(expected.payload_bytes));
  if (record.size() != header_bytes + static_cast<size_t>(expected.payload_bytes)) {
    return Bad(expected, "wrong length");
  }
  const std::string_view header = record.substr(0, header_bytes);
  ByteReader reader(header);
  if (reader.Raw(kMagic.size()) != kMagic) return Bad(expected, "wrong magic");
  if (reader.U32() != kVersion) return Bad(expected, "unknown version");
  ByteReader trailer(header.substr(header_bytes - kChecksumBytes));
  if (trailer.U64() != Checksum(header.substr(0, header_bytes - kChecksumBytes))) {
    return Bad(expected, "checksum of the header differs");
  }
  RecordInfo found;
  found.codec = static_cast<Codec>(reader.U8());
  const uint8_t zero = reader.U8();
  found.tokens = reader.U16();
  found.ns = reader.Id();
  found.id = reader.Id();
  found.parent = reader.Id();
  found.payload_bytes = reader.I64();
  if (zero != 0 || found != expected) return Bad(expected, "it describes another chunk");
  if (reader.U32() != kRecordBlockBytes) return Bad(expected, "wrong block size");
  const int64_t blocks = BlockCount(expected.payload_bytes);
  if (reader.U32() != blocks) return Bad(expected, "wrong number of blocks");
  const std::string_view payload = record.substr(header_bytes);
  for (int64_t i = 0; i < blocks; ++i) {
    if (reader.U64() != Checksum(Block(payload, i))) {
      return Bad(expected, absl::StrCat("checksum of block ", i, " differs"));
    }
  }
  return payload;
}

}  // namespace semshare
