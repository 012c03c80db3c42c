#include "storage/ids.h"

#include <gtest/gtest.h>

#include <numeric>

namespace semshare {
namespace {

std::vector<uint32_t> Tokens(size_t count) {
  std::vector<uint32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 1000U);
  return ids;
}

const NamespaceId kNs = MakeNamespaceId("tenant", "fingerprint");

TEST(Id128Test, BytesAndHexAreBigEndian) {
  const Id128 id{0x0123456789abcdefULL, 0xfedcba9876543210ULL};
  EXPECT_EQ(id.ToHex(), "0123456789abcdeffedcba9876543210");
  EXPECT_EQ(id.ToBytes().substr(0, 3), "\x01\x23\x45");
  EXPECT_EQ(Id128::FromBytes(id.ToBytes()), id);
  EXPECT_TRUE(Id128().empty());
  EXPECT_FALSE(id.empty());
}

TEST(Id128Test, ByteOrderIsIdOrder) {
  const std::vector<Id128> ids = {{0, 1}, {0, 256}, {1, 0}, {1, 2}, {256, 0}};
  for (size_t i = 1; i < ids.size(); ++i) {
    EXPECT_LT(ids[i - 1], ids[i]);
    EXPECT_LT(ids[i - 1].ToBytes(), ids[i].ToBytes());
  }
}

// Ids are on disk and shared between brokers. If these values change, a domain's version must.
TEST(IdsTest, GoldenValues) {
  EXPECT_EQ(kNs.ToHex(), "d79ecb50be0599275d3a4c2e83cf83a9");
  const std::vector<ChunkId> chain = MakeChunkChain(kNs, Tokens(70), {});
  ASSERT_EQ(chain.size(), 2U);
  EXPECT_EQ(chain[0].ToHex(), "0e4bf3114a39e0a1637aefdb8c102664");
  EXPECT_EQ(chain[1].ToHex(), "1a7307fe246e59c10701b20e947180bc");
  EXPECT_EQ(MakeReferenceId(kNs, Tokens(70), {}).ToHex(), "987d87584aa498dd658e8196780b10c8");
  const std::vector<ContentTag> tags = {{60, 66, "image"}};
  EXPECT_EQ(MakeChunkChain(kNs, Tokens(70), tags)[1].ToHex(), "7bb885e5850e96388d1cf84e74aa960a");
  EXPECT_EQ(MakeReferenceId(kNs, Tokens(70), tags).ToHex(), "d226965c1fa065c4893933be8c008148");
}

TEST(IdsTest, NamespaceSeparatesItsParts) {
  EXPECT_NE(MakeNamespaceId("ab", "c"), MakeNamespaceId("a", "bc"));
  EXPECT_NE(MakeNamespaceId("a", ""), MakeNamespaceId("", "a"));
}

TEST(IdsTest, EqualPrefixesHaveEqualChains) {
  std::vector<uint32_t> a = Tokens(64 * 4);
  std::vector<uint32_t> b = a;
  b[64 * 2 + 5] ^= 1;
  const std::vector<ChunkId> chain_a = MakeChunkChain(kNs, a, {});
  const std::vector<ChunkId> chain_b = MakeChunkChain(kNs, b, {});
  ASSERT_EQ(chain_a.size(), 4U);
  EXPECT_EQ(chain_a[0], chain_b[0]);
  EXPECT_EQ(chain_a[1], chain_b[1]);
  EXPECT_NE(chain_a[2], chain_b[2]);
  // Equal tokens behind a different prefix are another chunk.
  EXPECT_NE(chain_a[3], chain_b[3]);
}

TEST(IdsTest, LengthOfTheLastChunkIsInItsId) {
  EXPECT_TRUE(MakeChunkChain(kNs, {}, {}).empty());
  EXPECT_EQ(MakeChunkChain(kNs, Tokens(1), {}).size(), 1U);
  EXPECT_EQ(MakeChunkChain(kNs, Tokens(64), {}).size(), 1U);
  EXPECT_EQ(MakeChunkChain(kNs, Tokens(65), {}).size(), 2U);
  std::vector<uint32_t> padded = Tokens(63);
  padded.push_back(0);
  EXPECT_NE(MakeChunkChain(kNs, Tokens(63), {})[0], MakeChunkChain(kNs, padded, {})[0]);
  EXPECT_NE(MakeChunkChain(kNs, Tokens(63), {})[0], MakeChunkChain(kNs, Tokens(64), {})[0]);
}

TEST(IdsTest, NamespacesAndKindsDiffer) {
  const NamespaceId other = MakeNamespaceId("tenant2", "fingerprint");
  EXPECT_NE(MakeChunkChain(kNs, Tokens(64), {}), MakeChunkChain(other, Tokens(64), {}));
  EXPECT_NE(MakeReferenceId(kNs, Tokens(64), {}), MakeReferenceId(other, Tokens(64), {}));
  EXPECT_NE(MakeReferenceId(kNs, Tokens(64), {}), MakeChunkChain(kNs, Tokens(64), {})[0]);
}

TEST(IdsTest, TagsChangeIdsFromTheirChunkOn) {
  const std::vector<uint32_t> tokens = Tokens(64 * 3);
  const std::vector<ChunkId> plain = MakeChunkChain(kNs, tokens, {});
  const std::vector<ContentTag> tags = {{70, 80, "a"}};
  const std::vector<ChunkId> tagged = MakeChunkChain(kNs, tokens, tags);
  EXPECT_EQ(plain[0], tagged[0]);
  EXPECT_NE(plain[1], tagged[1]);
  EXPECT_NE(plain[2], tagged[2]);
  for (const ContentTag& other : {ContentTag{70, 80, "b"}, ContentTag{71, 80, "a"},
                                  ContentTag{70, 81, "a"}, ContentTag{70, 140, "a"}}) {
    const std::vector<ContentTag> others = {other};
    EXPECT_NE(MakeChunkChain(kNs, tokens, others)[1], tagged[1]);
    EXPECT_NE(MakeReferenceId(kNs, tokens, others), MakeReferenceId(kNs, tokens, tags));
  }
}

TEST(IdsTest, OrderOfTagsMeansNothing) {
  const std::vector<ContentTag> ab = {{1, 5, "a"}, {3, 9, "b"}};
  const std::vector<ContentTag> ba = {{3, 9, "b"}, {1, 5, "a"}};
  EXPECT_EQ(MakeChunkChain(kNs, Tokens(64), ab), MakeChunkChain(kNs, Tokens(64), ba));
  EXPECT_EQ(MakeReferenceId(kNs, Tokens(64), ab), MakeReferenceId(kNs, Tokens(64), ba));
}

TEST(IdsTest, TagAtAChunkBoundaryTouchesOneChunk) {
  const std::vector<uint32_t> tokens = Tokens(128);
  const std::vector<ChunkId> plain = MakeChunkChain(kNs, tokens, {});
  const std::vector<ContentTag> tags = {{64, 128, "a"}};
  const std::vector<ChunkId> tagged = MakeChunkChain(kNs, tokens, tags);
  EXPECT_EQ(plain[0], tagged[0]);
  EXPECT_NE(plain[1], tagged[1]);
}

}  // namespace
}  // namespace semshare
