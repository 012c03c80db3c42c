#include "kernels/peer_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace semshare {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
// What the socket's answer has room for, behind the "region: " that the table puts in front.
constexpr size_t kRoom = 159 - 8;

TEST(PeerMemoryTest, AnotherDeviceIsRefusedNamingBoth) {
  std::array<char, 16> own = {};
  std::array<char, 16> peers = {};
  for (int i = 0; i < 16; ++i) own[static_cast<size_t>(i)] = static_cast<char>(0xf0 + i);
  EXPECT_TRUE(CheckPeerDevice(own, own).ok());
  const absl::Status status = CheckPeerDevice(own, peers);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(status.message()),
            "the memory is on GPU-00000000-0000-0000-0000-000000000000, "
            "the broker on GPU-f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff");
  EXPECT_LE(status.message().size(), kRoom);
}

TEST(PeerMemoryTest, TheReasonOfTheDriverFitsTheAnswer) {
  const absl::Status status = PeerOpenError("cudaErrorMapBufferObjectFailed");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expandable_segments"));
  EXPECT_LE(status.message().size(), kRoom);
}

TEST(PeerMemoryTest, BoundsAreTheDriversNotThePeers) {
  const MemorySpan mapping{0x10000, 1000, MemoryKind::kDevice};
  const auto span = [&](int64_t offset, int64_t bytes, uintptr_t opened = 0x10000) {
    PeerMemoryHandle handle;
    handle.offset = offset;
    handle.bytes = bytes;
    return PeerSpan(handle, opened, mapping);
  };
  const auto whole = span(0, 1000);
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->address, mapping.address);
  EXPECT_EQ(whole->bytes, 1000);
  EXPECT_EQ(whole->kind, MemoryKind::kDevice);
  EXPECT_EQ(span(999, 1)->address, 0x10000u + 999);
  // An allocation that begins within what the driver maps.
  EXPECT_EQ(span(10, 890, 0x10000 + 100)->address, 0x10000u + 110);
  for (const auto& bad :
       {span(0, 1001), span(1, 1000), span(1000, 1), span(-1, 10), span(0, 0), span(0, -1),
        span(kMax, 1), span(1, kMax), span(kMax, kMax), span(10, 891, 0x10000 + 100),
        span(0, 1, 0x10000 - 1), span(0, 1, 0x10000 + 1000)}) {
    EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument) << bad->address;
    EXPECT_LE(bad.status().message().size(), kRoom) << bad.status();
  }
  EXPECT_EQ(PeerSpan({}, 0x10000, {0x10000, 0, MemoryKind::kDevice}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace semshare
