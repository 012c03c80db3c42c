// 128-bit identities: namespaces, chunks and references, and how they are derived.
//
// An identity is a keyed XXH3-128 hash. It is no proof of equality: whoever finds an id compares
// the stored token ids before it trusts the hit, so a collision can not make a wrong match.
//
// Thread-safe: values and pure functions.
#ifndef SEMSHARE_STORAGE_IDS_H_
#define SEMSHARE_STORAGE_IDS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

namespace semshare {

// Tokens of a chunk: the unit of sharing, spilling, transfer and checksums.
inline constexpr int64_t kChunkTokens = 64;

struct Id128 {
  uint64_t high = 0;
  uint64_t low = 0;

  auto operator<=>(const Id128&) const = default;  // NOLINT(modernize-use-nullptr)
  bool empty() const { return high == 0 && low == 0; }

  // 16 bytes, big endian, so that byte order is the order of the ids.
  std::string ToBytes() const;
  // REQUIRES: bytes.size() == 16.
  static Id128 FromBytes(std::string_view bytes);
  // 32 lower-case hexadecimal digits.
  std::string ToHex() const;

  template <typename H>
  friend H AbslHashValue(H state, const Id128& id) {
    return H::combine(std::move(state), id.high, id.low);
  }
};

using NamespaceId = Id128;
using ChunkId = Id128;
using ReferenceId = Id128;

// Content that token ids do not determine: tokens [begin, end) carry this digest.
struct ContentTag {
  int64_t begin = 0;
  int64_t end = 0;
  std::string digest;

  bool operator==(const ContentTag&) const = default;
};

// Namespace = (tenant, model fingerprint). Nothing is ever matched across namespaces.
NamespaceId MakeNamespaceId(std::string_view tenant, std::string_view fingerprint);

// The chain of chunk ids of a prompt: each id covers (namespace, parent id, the chunk's ids, its
// tags relative to the chunk's first token, its length), so equal prefixes have equal chains. The
// last chunk may be short.
std::vector<ChunkId> MakeChunkChain(NamespaceId ns, absl::Span<const uint32_t> token_ids,
                                    absl::Span<const ContentTag> tags);

// Derived from the namespace, all ids and all tags.
ReferenceId MakeReferenceId(NamespaceId ns, absl::Span<const uint32_t> token_ids,
                            absl::Span<const ContentTag> tags);

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_IDS_H_
