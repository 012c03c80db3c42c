// The options of a ChunkStore, what it takes from the backend, and the paths on which the device
// fails.
#include "storage/chunk_io.h"

#include <gtest/gtest.h>

#include "storage/arena.h"
#include "tests/storage/store_testing.h"
#include "tests/testing/late_backend.h"
#include "tests/testing/memory_disk_tier.h"

namespace semshare::testing {
namespace {

constexpr int64_t kHalf = kSuperblockBytes / 2;

class ChunkIoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    backend_ = NewLateBackend({.lanes = 2, .delay = absl::InfiniteDuration()});
    ChunkStoreOptions options;
    options.device_memory_bytes = kSuperblockBytes;
    options.staging_bytes = kMaxChunkBytes;
    options.lane_timeout_ms = 1;
    auto store = ChunkStore::Create(options, backend_.get(), &disk_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    auto refs = PutChunks(store_.get(), backend_.get(), {meta_});
    ASSERT_TRUE(refs.ok()) << refs.status();
    refs_ = *std::move(refs);
  }

  void EvictAll() { EXPECT_TRUE(store_->Reserve(TestMeta(99, kMaxChunkBytes)).ok()); }
  absl::Status Check() { return CheckPinned(store_.get(), backend_.get(), {meta_}); }

  const ChunkMeta meta_ = TestMeta(1, kHalf);
  std::unique_ptr<LateBackend> backend_;
  MemoryDiskTier disk_;
  std::unique_ptr<ChunkStore> store_;
  std::vector<ChunkRef> refs_;
};

TEST_F(ChunkIoTest, NothingIsAllocatedAfterTheStart) {
  const int64_t allocations = backend_->allocations();
  EXPECT_TRUE(store_->Persist({meta_.id}).ok());
  EvictAll();
  EXPECT_EQ(Check(), absl::OkStatus());
  ChunkMeta short_chunk = TestMeta(2, kHalf);
  short_chunk.token_ids.resize(3);
  EXPECT_TRUE(store_->Reserve(short_chunk).ok());
  EXPECT_EQ(backend_->allocations(), allocations);
}

TEST_F(ChunkIoTest, AFailedCopyDuringPersistWritesNothing) {
  for (const LateOp op : {LateOp::kCopy, LateOp::kRecord, LateOp::kAcquireLane}) {
    backend_->FailNext(op, absl::UnavailableError("device"));
    EXPECT_TRUE(absl::IsUnavailable(store_->Persist({meta_.id})));
    EXPECT_FALSE(store_->Describe(meta_.id).durable);
    EXPECT_EQ(disk_.size(DiskTable::kChunks), 0);
  }
  backend_->RefuseNext(LateOp::kCopy, absl::UnavailableError("device"));
  EXPECT_TRUE(absl::IsUnavailable(store_->Persist({meta_.id})));
  EXPECT_TRUE(store_->Persist({meta_.id}).ok());
  EvictAll();
  EXPECT_EQ(Check(), absl::OkStatus());
}

TEST_F(ChunkIoTest, AFailedCopyDuringALoadIsNotABadRecord) {
  EXPECT_TRUE(store_->Persist({meta_.id}).ok());
  EvictAll();
  for (const LateOp op : {LateOp::kCopy, LateOp::kRecord, LateOp::kAcquireLane}) {
    backend_->FailNext(op, absl::UnavailableError("device"));
    EXPECT_TRUE(absl::IsUnavailable(Check()));
    EXPECT_EQ(store_->stats().quarantined_chunks, 0);
    EXPECT_EQ(store_->stats().device_bytes_used, 0);
  }
  EXPECT_EQ(Check(), absl::OkStatus());
}

TEST_F(ChunkIoTest, AFailedZeroingGivesTheMemoryBack) {
  const int64_t used = store_->stats().device_bytes_used;
  ChunkMeta short_chunk = TestMeta(2, kHalf);
  short_chunk.token_ids.resize(3);
  backend_->FailNext(LateOp::kCopy, absl::UnavailableError("device"));
  EXPECT_TRUE(absl::IsUnavailable(store_->Reserve(short_chunk).status()));
  EXPECT_EQ(store_->stats().device_bytes_used, used);
}

TEST_F(ChunkIoTest, WithoutAFreeLaneAWriteIsRefused) {
  const auto one = backend_->AcquireLane(absl::Seconds(60));
  const auto two = backend_->AcquireLane(absl::Seconds(60));
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Persist({meta_.id})));
}

TEST_F(ChunkIoTest, WithoutMemoryThereIsNoStore) {
  const int64_t bytes = backend_->allocated_bytes();
  backend_->FailNext(LateOp::kAllocate, absl::ResourceExhaustedError("memory"));
  const auto store = ChunkStore::Create(ChunkStoreOptions(), backend_.get(), &disk_);
  EXPECT_TRUE(absl::IsResourceExhausted(store.status()));
  EXPECT_EQ(backend_->allocated_bytes(), bytes);
}

TEST_F(ChunkIoTest, OptionsCheckTheirLimits) {
  ChunkStoreOptions options;
  EXPECT_TRUE(options.Validate().ok());
  options.device_memory_bytes = kSuperblockBytes;
  options.staging_bytes = kMaxChunkBytes;
  options.high_watermark = 1.0;
  EXPECT_TRUE(options.Validate().ok());
  options.device_memory_bytes = kSuperblockBytes - 1;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
  EXPECT_FALSE(ChunkStore::Create(options, backend_.get(), &disk_).ok());
  options.device_memory_bytes = kSuperblockBytes;
  options.staging_bytes = kMaxChunkBytes - 1;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
  options.staging_bytes = kMaxChunkBytes;
  options.high_watermark = 1.01;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
  options.high_watermark = 0.0;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
  options.high_watermark = 1.0;
  options.lane_timeout_ms = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
}

}  // namespace
}  // namespace semshare::testing
