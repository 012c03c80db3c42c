// The bytes of a manifest on disk. Integers are little-endian; a string is its length in 4 bytes
// and its bytes; a list is its count in 4 bytes and its elements.
//
//   offset  bytes  field
//        0      8  magic "SEMSHMAN"
//        8      4  version, 1
//       12      8  XXH3-64 of everything from offset 20 on
//       20     16  reference id
//       36     16  namespace id
//       52      4  signature version
//       56      8  chunk bytes
//       64      8  created, unix ms
//       72      8  expires, unix ms
//       80      1  priority
//       81      1  flags: 1 pinned, 2 durable
//       82         alias: string
//                  token ids: list of 4 bytes
//                  tags: list of (begin 8, end 8, digest: string)
//                  importance: list of 4 bytes (IEEE 754), empty or one per token
//                  chunks: list of 16 bytes, one per kChunkTokens tokens
//                  signatures: list of 8 bytes
#include <xxhash.h>

#include <bit>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "storage/bytes.h"
#include "storage/catalog.h"

namespace semshare {
namespace {

constexpr std::string_view kMagic = "SEMSHMAN";
// Frozen: a format that differs in any way gets the next number.
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 20;
constexpr uint8_t kFlagPinned = 1;
constexpr uint8_t kFlagDurable = 2;

absl::Status Bad(const char* what) { return absl::DataLossError(absl::StrCat("manifest: ", what)); }

uint32_t CountOf(size_t size) { return static_cast<uint32_t>(size); }

void EncodeFields(const Manifest& manifest, ByteWriter* writer) {
  writer->Id(manifest.id);
  writer->Id(manifest.ns);
  writer->U32(manifest.signature_version);
  writer->I64(manifest.chunk_bytes);
  writer->I64(manifest.created_unix_ms);
  writer->I64(manifest.expires_unix_ms);
  writer->U8(static_cast<uint8_t>(manifest.priority));
  writer->U8(static_cast<uint8_t>((manifest.pinned ? kFlagPinned : 0) |
                                  (manifest.durable ? kFlagDurable : 0)));
  writer->String(manifest.alias);
  writer->U32(CountOf(manifest.token_ids.size()));
  for (const uint32_t id : manifest.token_ids) writer->U32(id);
  writer->U32(CountOf(manifest.tags.size()));
  for (const ContentTag& tag : manifest.tags) {
    writer->I64(tag.begin);
    writer->I64(tag.end);
    writer->String(tag.digest);
  }
  writer->U32(CountOf(manifest.importance.size()));
  for (const float value : manifest.importance) writer->U32(std::bit_cast<uint32_t>(value));
  writer->U32(CountOf(manifest.chunks.size()));
  for (const ChunkId& chunk : manifest.chunks) writer->Id(chunk);
  writer->U32(CountOf(manifest.signatures.size()));
  for (const uint64_t code : manifest.signatures) writer->U64(code);
}

// Every count is checked against the bytes that are left before anything is allocated for it.
void DecodeLists(ByteReader* reader, Manifest* manifest) {
  manifest->token_ids.resize(reader->Count(4));
  for (uint32_t& id : manifest->token_ids) id = reader->U32();
  manifest->tags.resize(reader->Count(20));
  for (ContentTag& tag : manifest->tags) {
    tag.begin = reader->I64();
    tag.end = reader->I64();
    tag.digest = std::string(reader->String());
  }
  manifest->importance.resize(reader->Count(4));
  for (float& value : manifest->importance) value = std::bit_cast<float>(reader->U32());
  manifest->chunks.resize(reader->Count(16));
  for (ChunkId& chunk : manifest->chunks) chunk = reader->Id();
  manifest->signatures.resize(reader->Count(8));
  for (uint64_t& code : manifest->signatures) code = reader->U64();
}

absl::Status CheckLists(const Manifest& manifest) {
  const size_t tokens = manifest.token_ids.size();
  if (!manifest.importance.empty() && manifest.importance.size() != tokens) {
    return Bad("importance does not have one value per token");
  }
  const auto chunk_tokens = static_cast<size_t>(kChunkTokens);
  if (manifest.chunks.size() != (tokens + chunk_tokens - 1) / chunk_tokens) {
    return Bad("the number of chunks does not fit the tokens");
  }
  for (const ContentTag& tag : manifest.tags) {
    if (tag.begin < 0 || tag.end < tag.begin) return Bad("a tag has a bad range");
  }
  return absl::OkStatus();
}

}  // namespace

std::string EncodeManifest(const Manifest& manifest) {
  ByteWriter fields;
  fields.Reserve(manifest.token_ids.size() * 9 + manifest.chunks.size() * 16 + 256);
  EncodeFields(manifest, &fields);
  ByteWriter writer;
  writer.Reserve(kHeaderBytes + fields.bytes().size());
  writer.Raw(kMagic);
  writer.U32(kVersion);
  writer.U64(XXH3_64bits(fields.bytes().data(), fields.bytes().size()));
  writer.Raw(fields.bytes());
  return std::move(writer.bytes());
}

absl::StatusOr<Manifest> DecodeManifest(std::string_view bytes) {
  ByteReader header(bytes);
  if (header.Raw(kMagic.size()) != kMagic) return Bad("wrong magic");
  if (header.U32() != kVersion) return Bad("unknown version");
  const uint64_t checksum = header.U64();
  if (!header.ok()) return Bad("truncated");
  const std::string_view fields = bytes.substr(kHeaderBytes);
  if (XXH3_64bits(fields.data(), fields.size()) != checksum) return Bad("checksum differs");

  ByteReader reader(fields);
  Manifest manifest;
  manifest.id = reader.Id();
  manifest.ns = reader.Id();
  manifest.signature_version = reader.U32();
  manifest.chunk_bytes = reader.I64();
  manifest.created_unix_ms = reader.I64();
  manifest.expires_unix_ms = reader.I64();
  manifest.priority = reader.U8();
  const uint8_t flags = reader.U8();
  manifest.pinned = (flags & kFlagPinned) != 0;
  manifest.durable = (flags & kFlagDurable) != 0;
  manifest.alias = std::string(reader.String());
  DecodeLists(&reader, &manifest);
  if (!reader.ok()) return Bad("truncated");
  if (reader.remaining() != 0) return Bad("bytes after the end");
  if ((flags & ~(kFlagPinned | kFlagDurable)) != 0) return Bad("unknown flags");
  const absl::Status lists = CheckLists(manifest);
  if (!lists.ok()) return lists;
  return manifest;
}

}  // namespace semshare
