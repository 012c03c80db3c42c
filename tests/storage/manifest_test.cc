#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <limits>
#include <random>

#include "storage/catalog.h"

namespace semshare {
namespace {

constexpr size_t kHeaderBytes = 20;

Manifest MakeManifest(size_t tokens) {
  Manifest manifest;
  manifest.ns = MakeNamespaceId("t", "f");
  for (size_t i = 0; i < tokens; ++i) manifest.token_ids.push_back(static_cast<uint32_t>(i * 7));
  manifest.tags = {{1, 2, "abc"}, {3, 100, std::string("\0x", 2)}};
  manifest.importance.assign(tokens, 0.5F);
  if (tokens > 0) manifest.importance[0] = std::numeric_limits<float>::quiet_NaN();
  manifest.id = MakeReferenceId(manifest.ns, manifest.token_ids, manifest.tags);
  manifest.chunks = MakeChunkChain(manifest.ns, manifest.token_ids, manifest.tags);
  manifest.signatures = {1, 2, ~uint64_t{0}};
  manifest.signature_version = 7;
  manifest.alias = "system prompt";
  manifest.priority = 255;
  manifest.pinned = true;
  manifest.durable = true;
  manifest.chunk_bytes = 4096;
  manifest.created_unix_ms = 1700000000000;
  manifest.expires_unix_ms = -1;
  return manifest;
}

// Gives changed bytes a right checksum, so that the fields behind it are parsed.
void Seal(std::string* bytes) {
  if (bytes->size() < kHeaderBytes) return;
  const uint64_t checksum = XXH3_64bits(bytes->data() + kHeaderBytes, bytes->size() - kHeaderBytes);
  for (size_t i = 0; i < 8; ++i) (*bytes)[12 + i] = static_cast<char>(checksum >> (8 * i));
}

// Either an error, or something that encodes to the same bytes.
void ExpectExact(const std::string& bytes) {
  const auto manifest = DecodeManifest(bytes);
  if (!manifest.ok()) {
    EXPECT_TRUE(absl::IsDataLoss(manifest.status()));
    return;
  }
  EXPECT_EQ(EncodeManifest(*manifest), bytes);
}

TEST(ManifestTest, RoundTrip) {
  for (const size_t tokens : {0, 1, 64, 65, 1000}) {
    const Manifest manifest = MakeManifest(tokens);
    const auto decoded = DecodeManifest(EncodeManifest(manifest));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->id, manifest.id);
    EXPECT_EQ(decoded->ns, manifest.ns);
    EXPECT_EQ(decoded->token_ids, manifest.token_ids);
    EXPECT_EQ(decoded->tags, manifest.tags);
    ASSERT_EQ(decoded->importance.size(), tokens);
    EXPECT_EQ(0, tokens == 0 ? 0
                             : std::memcmp(decoded->importance.data(), manifest.importance.data(),
                                           tokens * sizeof(float)));
    EXPECT_EQ(decoded->chunks, manifest.chunks);
    EXPECT_EQ(decoded->signatures, manifest.signatures);
    EXPECT_EQ(decoded->signature_version, 7U);
    EXPECT_EQ(decoded->alias, "system prompt");
    EXPECT_EQ(decoded->priority, 255);
    EXPECT_TRUE(decoded->pinned);
    EXPECT_TRUE(decoded->durable);
    EXPECT_EQ(decoded->chunk_bytes, 4096);
    EXPECT_EQ(decoded->created_unix_ms, 1700000000000);
    EXPECT_EQ(decoded->expires_unix_ms, -1);
  }
}

TEST(ManifestTest, TruncationAtEveryByte) {
  const std::string bytes = EncodeManifest(MakeManifest(70));
  for (size_t size = 0; size < bytes.size(); ++size) {
    std::string cut = bytes.substr(0, size);
    EXPECT_TRUE(absl::IsDataLoss(DecodeManifest(cut).status())) << size;
    Seal(&cut);
    EXPECT_TRUE(absl::IsDataLoss(DecodeManifest(cut).status())) << size;
  }
  std::string longer = bytes + '\0';
  EXPECT_TRUE(absl::IsDataLoss(DecodeManifest(longer).status()));
  Seal(&longer);
  EXPECT_TRUE(absl::IsDataLoss(DecodeManifest(longer).status()));
}

TEST(ManifestTest, EveryFlippedBitIsFound) {
  std::string bytes = EncodeManifest(MakeManifest(10));
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      EXPECT_TRUE(absl::IsDataLoss(DecodeManifest(bytes).status())) << i;
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
    }
  }
}

TEST(ManifestTest, RandomMutationsWithARightChecksum) {
  std::mt19937_64 random(7);
  const std::string original = EncodeManifest(MakeManifest(70));
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = original;
    const int changes = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < changes; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    if (random() % 4 == 0) bytes.append(random() % 9, static_cast<char>(random()));
    Seal(&bytes);
    ExpectExact(bytes);
  }
}

TEST(ManifestTest, HugeCountsAreRefusedBeforeAnythingIsAllocated) {
  const std::string original = EncodeManifest(MakeManifest(0));
  for (size_t at = kHeaderBytes; at + 4 <= original.size(); ++at) {
    std::string bytes = original;
    bytes.replace(at, 4, "\xff\xff\xff\xff");
    Seal(&bytes);
    ExpectExact(bytes);
  }
}

TEST(ManifestTest, RandomBytes) {
  std::mt19937_64 random(8);
  for (int round = 0; round < 5000; ++round) {
    std::string bytes(random() % 300, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    if (bytes.size() >= kHeaderBytes) bytes.replace(0, 12, std::string("SEMSHMAN\1\0\0\0", 12));
    Seal(&bytes);
    ExpectExact(bytes);
  }
}

}  // namespace
}  // namespace semshare
