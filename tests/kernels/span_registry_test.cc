#include "kernels/span_registry.h"

#include <gtest/gtest.h>

namespace semshare {
namespace {

MemorySpan Host(uintptr_t address, int64_t bytes) { return {address, bytes, MemoryKind::kHost}; }

TEST(SpanRegistryTest, KnowsWhatLiesWithinOneSpan) {
  SpanRegistry registry;
  EXPECT_FALSE(registry.Contains(Host(1000, 1)));
  ASSERT_TRUE(registry.Add(Host(1000, 100)).ok());
  ASSERT_TRUE(registry.Add(Host(1100, 50)).ok());  // adjacent, not the same span
  EXPECT_TRUE(registry.Contains(Host(1000, 100)));
  EXPECT_TRUE(registry.Contains(Host(1099, 1)));
  EXPECT_TRUE(registry.Contains(Host(1149, 1)));
  EXPECT_TRUE(registry.Contains(Host(5, 0)));
  EXPECT_FALSE(registry.Contains(Host(999, 1)));
  EXPECT_FALSE(registry.Contains(Host(999, 2)));
  EXPECT_FALSE(registry.Contains(Host(1050, 100)));
  EXPECT_FALSE(registry.Contains(Host(1149, 2)));
  EXPECT_FALSE(registry.Contains(Host(1000, -1)));
  EXPECT_FALSE(registry.Contains({1000, 1, MemoryKind::kDevice}));
}

TEST(SpanRegistryTest, OverlapsAreRefused) {
  SpanRegistry registry;
  ASSERT_TRUE(registry.Add(Host(1000, 100)).ok());
  for (const MemorySpan& span :
       {Host(1000, 100), Host(900, 101), Host(1099, 10), Host(1050, 1), Host(500, 5000)}) {
    EXPECT_EQ(registry.Add(span).code(), absl::StatusCode::kInvalidArgument) << span.address;
  }
  EXPECT_TRUE(registry.Add(Host(900, 100)).ok());
  EXPECT_TRUE(registry.Add({1000, 100, MemoryKind::kDevice}).ok());
  registry.Remove(Host(1000, 100));
  EXPECT_FALSE(registry.Contains(Host(1000, 1)));
  EXPECT_TRUE(registry.Contains(Host(900, 100)));
  EXPECT_TRUE(registry.Contains({1000, 1, MemoryKind::kDevice}));
  EXPECT_TRUE(registry.Add(Host(1000, 100)).ok());
}

TEST(SpanRegistryTest, SharedSpansStayUntilTheLastUserIsGone) {
  SpanRegistry registry;
  ASSERT_TRUE(registry.AddShared(Host(1000, 100)).ok());
  ASSERT_TRUE(registry.AddShared(Host(1000, 100)).ok());
  for (const MemorySpan& span : {Host(1000, 99), Host(1000, 101), Host(1050, 100)}) {
    EXPECT_EQ(registry.AddShared(span).code(), absl::StatusCode::kInvalidArgument) << span.bytes;
  }
  EXPECT_EQ(registry.Add(Host(1000, 100)).code(), absl::StatusCode::kInvalidArgument);
  registry.Remove(Host(1000, 100));
  EXPECT_TRUE(registry.Contains(Host(1000, 100)));
  registry.Remove(Host(1000, 100));
  EXPECT_FALSE(registry.Contains(Host(1000, 1)));
  ASSERT_TRUE(registry.Add(Host(1000, 100)).ok());  // its owner's alone
  EXPECT_EQ(registry.AddShared(Host(1000, 100)).code(), absl::StatusCode::kInvalidArgument);
}

TEST(SpanRegistryDeathTest, RemovingWhatIsNotThereStopsTheProcess) {
  SpanRegistry registry;
  ASSERT_TRUE(registry.Add(Host(1000, 100)).ok());
  EXPECT_DEATH(registry.Remove(Host(1001, 99)), "check failed");
}

}  // namespace
}  // namespace semshare
