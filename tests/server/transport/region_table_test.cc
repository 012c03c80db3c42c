#include "server/transport/region_table.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/late_backend.h"
#include "tests/testing/shared_memory.h"

namespace semshare {
namespace {

using ::testing::HasSubstr;
using testing::SharedMemory;

constexpr int64_t kBytes = 1 << 20;

TEST(RegionTableTest, BothSidesSeeTheSameMemory) {
  const auto backend = NewLateBackend();
  RegionTable table({}, backend.get());
  const SharedMemory memory(kBytes);
  const auto handle = table.Add("a", memory.fd(), kBytes);
  ASSERT_TRUE(handle.ok()) << handle.status();
  EXPECT_EQ(handle->size(), 16u);
  const auto region = table.Find("a", *handle);
  ASSERT_TRUE(region.ok());
  ASSERT_EQ((*region)->span().bytes, kBytes);
  memory.data()[77] = std::byte{1};
  EXPECT_EQ((*region)->span().host()[77], std::byte{1});
  (*region)->span().host()[kBytes - 1] = std::byte{2};
  EXPECT_EQ(memory.data()[kBytes - 1], std::byte{2});
}

TEST(RegionTableTest, AHandleIsItsTenantsAlone) {
  const auto backend = NewLateBackend();
  RegionTable table({}, backend.get());
  const SharedMemory memory(kBytes);
  const std::string handle = *table.Add("a", memory.fd(), kBytes);
  EXPECT_EQ(table.Find("b", handle).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(table.Find("a", handle.substr(1)).status().code(), absl::StatusCode::kNotFound);
}

TEST(RegionTableTest, RemovedRegionsStayMappedForWhoUsesThem) {
  const auto backend = NewLateBackend();
  RegionTable table({}, backend.get());
  RegionPtr used;
  {
    const SharedMemory memory(kBytes);
    const std::string handle = *table.Add("a", memory.fd(), kBytes);
    used = *table.Find("a", handle);
    table.Remove(handle);
    EXPECT_EQ(table.Find("a", handle).status().code(), absl::StatusCode::kNotFound);
    table.Remove(handle);  // no harm
  }
  used->span().host()[kBytes - 1] = std::byte{3};
  EXPECT_EQ(table.stats().regions, 0);
  EXPECT_EQ(table.stats().bytes, 0);
}

// What a peer could use to make an access of ours fault is refused.
TEST(RegionTableTest, FilesThatCouldChangeAreRefused) {
  const auto backend = NewLateBackend();
  RegionTable table({}, backend.get());
  const auto refusal = [&](int fd, int64_t bytes) {
    const absl::Status status = table.Add("a", fd, bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    return std::string(status.message());
  };
  for (const int seals : {0, F_SEAL_SHRINK, F_SEAL_SHRINK | F_SEAL_GROW, F_SEAL_GROW | F_SEAL_SEAL,
                          F_SEAL_SHRINK | F_SEAL_SEAL}) {
    const SharedMemory memory(kBytes, seals);
    EXPECT_THAT(refusal(memory.fd(), kBytes), HasSubstr("must be sealed")) << seals;
  }
  const SharedMemory unwritable(kBytes, SharedMemory::kGoodSeals | F_SEAL_WRITE);
  EXPECT_THAT(refusal(unwritable.fd(), kBytes), HasSubstr("sealed against writing"));
  const SharedMemory holes(kBytes, SharedMemory::kGoodSeals, /*allocated=*/false);
  EXPECT_THAT(refusal(holes.fd(), kBytes), HasSubstr("not allocated"));
  const SharedMemory good(kBytes);
  EXPECT_THAT(refusal(good.fd(), kBytes + 1), HasSubstr("does not have"));
  EXPECT_THAT(refusal(good.fd(), kBytes - 1), HasSubstr("does not have"));
  char name[] = "/tmp/semshare-region-XXXXXX";
  const int file = mkstemp(name);
  unlink(name);
  EXPECT_THAT(refusal(file, kBytes), HasSubstr("region: the "));  // not one that can be sealed
  close(file);
  EXPECT_THAT(refusal(-1, kBytes), HasSubstr("not a memfd"));
  EXPECT_EQ(table.Add("a", good.fd(), 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(table.stats().regions, 0);
}

TEST(RegionTableTest, LimitsHoldAndComeBack) {
  const auto backend = NewLateBackend();
  RegionTable table({.max_regions = 2, .max_total_bytes = 2 * kBytes}, backend.get());
  const SharedMemory memory(kBytes);
  const SharedMemory large(kBytes + 4096);
  const std::string first = *table.Add("a", memory.fd(), kBytes);
  EXPECT_EQ(table.Add("a", large.fd(), kBytes + 4096).status().code(),
            absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(table.Add("a", memory.fd(), kBytes).ok());  // exactly at both limits
  EXPECT_EQ(table.Add("a", memory.fd(), kBytes).status().code(),
            absl::StatusCode::kResourceExhausted);
  table.Remove(first);
  EXPECT_TRUE(table.Add("a", memory.fd(), kBytes).ok());
  EXPECT_FALSE(RegionLimits{.max_regions = 0}.Validate().ok());
  EXPECT_FALSE(RegionLimits{.max_total_bytes = 0}.Validate().ok());
}

TEST(RegionTableTest, ABackendThatCannotReachTheMemoryRefusesIt) {
  const auto backend = NewLateBackend();
  RegionTable table({.max_regions = 1}, backend.get());
  const SharedMemory memory(kBytes);
  backend->FailNext(LateOp::kRegisterHost, absl::ResourceExhaustedError("cannot lock"));
  const absl::Status status = table.Add("a", memory.fd(), kBytes).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("region: cannot lock"));
  EXPECT_EQ(table.stats().regions, 0);
  EXPECT_TRUE(table.Add("a", memory.fd(), kBytes).ok());  // nothing was kept of the first
}

class PeerRegionTest : public ::testing::Test {
 protected:
  const SharedMemory memory_{kBytes};
  const std::unique_ptr<LateBackend> backend_ = NewLateBackend();
  const PeerMemoryHandle whole_ = backend_->ExportPeerMemory(memory_.fd());
  RegionTable table_{{.max_regions = 2, .max_total_bytes = 1}, backend_.get()};
};

TEST_F(PeerRegionTest, MemoryOfAGpuIsARegionAsAnyOther) {
  const auto handle = table_.AddPeer("a", whole_);
  ASSERT_TRUE(handle.ok()) << handle.status();
  EXPECT_EQ(table_.Find("b", *handle).status().code(), absl::StatusCode::kNotFound);
  RegionPtr region = *table_.Find("a", *handle);
  EXPECT_EQ(region->span().kind, MemoryKind::kDevice);
  EXPECT_EQ(region->span().bytes, kBytes);
  Lane lane = *backend_->AcquireLane(absl::ZeroDuration());
  ASSERT_TRUE(region->EnqueueWait(lane).ok());
  const int32_t value = 7;
  ASSERT_TRUE(backend_->EnqueueCopy(lane, region->span().Sub(400, 4), HostSpan(&value, 1)).ok());
  ASSERT_TRUE(backend_->Record(lane)->Wait().ok());
  EXPECT_EQ(memory_.as<int32_t>()[100], 7);
  // Its bytes are the worker's, so the limit of bytes is not for them; that of regions is.
  EXPECT_EQ(table_.stats().regions, 1);
  EXPECT_EQ(table_.stats().bytes, 0);
  ASSERT_TRUE(table_.AddPeer("a", whole_).ok());  // the same memory once more
  EXPECT_EQ(table_.AddPeer("a", whole_).status().code(), absl::StatusCode::kResourceExhausted);
  // Open for as long as it is used.
  table_.Remove(*handle);
  EXPECT_EQ(table_.Find("a", *handle).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(backend_->open_peers(), 2);
  region = nullptr;
  EXPECT_EQ(backend_->open_peers(), 1);
}

TEST_F(PeerRegionTest, WhatCannotBeOpenedIsRefusedAndNothingIsKept) {
  PeerMemoryHandle part = whole_;
  part.offset = kBytes - 8;
  part.bytes = 8;
  const std::string handle = *table_.AddPeer("a", part);
  EXPECT_EQ((*table_.Find("a", handle))->span().bytes, 8);
  table_.Remove(handle);
  part.bytes = 9;
  EXPECT_EQ(table_.AddPeer("a", part).status().code(), absl::StatusCode::kInvalidArgument);
  PeerMemoryHandle other = whole_;
  other.device[3] = 'x';
  EXPECT_THAT(std::string(table_.AddPeer("a", other).status().message()),
              HasSubstr("region: the memory is on GPU-"));
  other = whole_;
  other.allocation[0] = 'x';
  EXPECT_EQ(table_.AddPeer("a", other).status().code(), absl::StatusCode::kFailedPrecondition);
  other = whole_;
  other.event[0] = 'x';
  EXPECT_EQ(table_.AddPeer("a", other).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(table_.stats().regions, 0);
  EXPECT_EQ(backend_->open_peers(), 0);
}

TEST_F(PeerRegionTest, ACpuRefusesMemoryOfAGpu) {
  const std::unique_ptr<Backend> cpu = *NewCpuBackend({});
  RegionTable table({}, cpu.get());
  const absl::Status status = table.AddPeer("a", whole_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("needs --backend=cuda"));
  EXPECT_EQ(table.stats().regions, 0);
}

}  // namespace
}  // namespace semshare
