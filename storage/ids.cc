#include "storage/ids.h"

#include <xxhash.h>

#include <algorithm>
#include <tuple>

#include "kernels/base/status_macros.h"
#include "storage/bytes.h"

namespace semshare {
namespace {

// Every kind of id has its own domain, so that no two kinds ever hash the same input. The version
// changes whenever what is hashed changes; ids of old versions then match nothing.
constexpr std::string_view kNamespaceDomain = "semshare.namespace.v1";
constexpr std::string_view kChunkDomain = "semshare.chunk.v1";
constexpr std::string_view kReferenceDomain = "semshare.reference.v1";

Id128 Hash(std::string_view bytes, uint64_t key) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data(), bytes.size(), key);
  return Id128{hash.high64, hash.low64};
}

// The key of the ids of a namespace; the namespace itself is hashed too.
uint64_t KeyOf(const NamespaceId& ns) { return ns.high ^ ((ns.low << 32) | (ns.low >> 32)); }

// The order in which a caller lists tags means nothing.
std::vector<ContentTag> Sorted(absl::Span<const ContentTag> tags) {
  std::vector<ContentTag> sorted(tags.begin(), tags.end());
  std::sort(sorted.begin(), sorted.end(), [](const ContentTag& a, const ContentTag& b) {
    return std::tie(a.begin, a.end, a.digest) < std::tie(b.begin, b.end, b.digest);
  });
  return sorted;
}

// Tags are hashed whole, even where they reach beyond the chunk: one digest may stand for content
// that spreads over a different number of tokens.
void AppendTags(absl::Span<const ContentTag> tags, int64_t begin, int64_t end, ByteWriter* writer) {
  for (const ContentTag& tag : tags) {
    if (tag.end <= begin || tag.begin >= end) continue;
    writer->U8(1);
    writer->I64(tag.begin - begin);
    writer->I64(tag.end - begin);
    writer->String(tag.digest);
  }
  writer->U8(0);
}

void AppendTokens(absl::Span<const uint32_t> token_ids, ByteWriter* writer) {
  writer->U64(token_ids.size());
  for (const uint32_t id : token_ids) writer->U32(id);
}

}  // namespace

std::string Id128::ToBytes() const {
  std::string bytes(16, '\0');
  for (size_t i = 0; i < 8; ++i) {
    bytes[i] = static_cast<char>(high >> (56 - 8 * i));
    bytes[8 + i] = static_cast<char>(low >> (56 - 8 * i));
  }
  return bytes;
}

Id128 Id128::FromBytes(std::string_view bytes) {
  SEMSHARE_CHECK(bytes.size() == 16);
  Id128 id;
  for (size_t i = 0; i < 8; ++i) {
    id.high = (id.high << 8) | static_cast<uint8_t>(bytes[i]);
    id.low = (id.low << 8) | static_cast<uint8_t>(bytes[8 + i]);
  }
  return id;
}

std::string Id128::ToHex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(32);
  for (const char byte : ToBytes()) {
    hex.push_back(kDigits[static_cast<uint8_t>(byte) >> 4]);
    hex.push_back(kDigits[static_cast<uint8_t>(byte) & 15]);
  }
  return hex;
}

NamespaceId MakeNamespaceId(std::string_view tenant, std::string_view fingerprint) {
  ByteWriter writer;
  writer.String(kNamespaceDomain);
  writer.String(tenant);
  writer.String(fingerprint);
  return Hash(writer.bytes(), 0);
}

std::vector<ChunkId> MakeChunkChain(NamespaceId ns, absl::Span<const uint32_t> token_ids,
                                    absl::Span<const ContentTag> tags) {
  const std::vector<ContentTag> sorted = Sorted(tags);
  const auto tokens = static_cast<int64_t>(token_ids.size());
  std::vector<ChunkId> chain;
  chain.reserve(static_cast<size_t>((tokens + kChunkTokens - 1) / kChunkTokens));
  ChunkId parent;
  ByteWriter writer;
  for (int64_t begin = 0; begin < tokens; begin += kChunkTokens) {
    const int64_t end = std::min(begin + kChunkTokens, tokens);
    writer.bytes().clear();
    writer.String(kChunkDomain);
    writer.Id(ns);
    writer.Id(parent);
    AppendTokens(token_ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                 &writer);
    AppendTags(sorted, begin, end, &writer);
    parent = Hash(writer.bytes(), KeyOf(ns));
    chain.push_back(parent);
  }
  return chain;
}

ReferenceId MakeReferenceId(NamespaceId ns, absl::Span<const uint32_t> token_ids,
                            absl::Span<const ContentTag> tags) {
  ByteWriter writer;
  writer.Reserve(token_ids.size() * sizeof(uint32_t) + 256);
  writer.String(kReferenceDomain);
  writer.Id(ns);
  AppendTokens(token_ids, &writer);
  AppendTags(Sorted(tags), 0, static_cast<int64_t>(token_ids.size()), &writer);
  return Hash(writer.bytes(), KeyOf(ns));
}

}  // namespace semshare
