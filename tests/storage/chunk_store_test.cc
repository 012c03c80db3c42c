#include "storage/chunk_store.h"

#include <gtest/gtest.h>

#include "storage/arena.h"
#include "tests/storage/backends.h"
#include "tests/storage/store_testing.h"
#include "tests/testing/memory_disk_tier.h"

namespace semshare::testing {
namespace {

constexpr int64_t kSmall = 64 << 10;
// Four fill the arena.
constexpr int64_t kQuarter = kSuperblockBytes / 4;

class ChunkStoreTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override {
    auto backend = GetParam().make();
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    Open();
  }

  void Open() {
    store_.reset();
    ChunkStoreOptions options;
    options.device_memory_bytes = kSuperblockBytes;
    options.staging_bytes = kMaxChunkBytes;
    options.high_watermark = 0.5;
    auto store = ChunkStore::Create(options, backend_.get(), &disk_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  std::vector<ChunkRef> Put(const std::vector<ChunkMeta>& metas) {
    auto refs = PutChunks(store_.get(), backend_.get(), metas);
    EXPECT_TRUE(refs.ok()) << refs.status();
    return refs.ok() ? *std::move(refs) : std::vector<ChunkRef>();
  }

  std::vector<ChunkRef> PutDurable(const std::vector<ChunkMeta>& metas) {
    std::vector<ChunkRef> refs = Put(metas);
    EXPECT_TRUE(store_->Persist(IdsOf(metas)).ok());
    return refs;
  }

  absl::Status Check(const std::vector<ChunkMeta>& metas, uint64_t version = 0) {
    return CheckPinned(store_.get(), backend_.get(), metas, version);
  }

  // Metas of `count` chunks, each with its number.
  static std::vector<ChunkMeta> Metas(uint64_t first, int count, int64_t bytes, int priority = 0) {
    std::vector<ChunkMeta> metas;
    for (int i = 0; i < count; ++i) {
      metas.push_back(TestMeta(first + static_cast<uint64_t>(i), bytes, priority));
    }
    return metas;
  }

  bool Resident(const ChunkMeta& meta) { return store_->Describe(meta.id).resident; }

  std::unique_ptr<Backend> backend_;
  MemoryDiskTier disk_;
  std::unique_ptr<ChunkStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Backends, ChunkStoreTest, ::testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(ChunkStoreTest, PublishedChunksAreFoundAndPinned) {
  const std::vector<ChunkMeta> metas =
      MakeChunkMetas(TestNamespace(), TestTokens(1, 64 * 3), {}, kSmall, 0);
  EXPECT_TRUE(store_->FindAll(metas)[0].id().empty());
  const std::vector<ChunkRef> refs = Put(metas);
  ASSERT_EQ(refs.size(), 3U);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(refs[i].id(), metas[i].id);
  EXPECT_EQ(Check(metas), absl::OkStatus());
  const ChunkState state = store_->Describe(metas[0].id);
  EXPECT_TRUE(state.resident);
  EXPECT_FALSE(state.durable);
  EXPECT_EQ(state.references, 1);
  EXPECT_EQ(state.bytes, kSmall);
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 0);
}

TEST_P(ChunkStoreTest, ChunkIsForgottenWithItsLastRef) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  std::vector<ChunkRef> refs = Put({meta});
  std::vector<ChunkRef> more = store_->FindAll({meta});
  refs.clear();
  EXPECT_EQ(store_->Describe(meta.id).references, 1);
  EXPECT_EQ(Check({meta}), absl::OkStatus());
  more.clear();
  EXPECT_TRUE(absl::IsNotFound(store_->PinAll({meta.id}).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Persist({meta.id})));
  EXPECT_EQ(store_->stats().chunks, 0);
  EXPECT_EQ(store_->stats().device_bytes_used, 0);
}

TEST_P(ChunkStoreTest, PinKeepsAChunkWhoseLastRefIsGone) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  std::vector<ChunkRef> refs = PutDurable({meta});
  {
    const auto pins = store_->PinAll({meta.id});
    ASSERT_TRUE(pins.ok());
    refs.clear();
    EXPECT_EQ(store_->stats().chunks, 1);
    EXPECT_EQ(store_->stats().chunks_pinned, 1);
    const auto bytes = ReadDevice(backend_.get(), store_->arena().Sub((*pins)[0].offset(), kSmall));
    ASSERT_TRUE(bytes.ok());
    EXPECT_EQ(*bytes, PatternOf(meta.id, kSmall));
    // It may be taken up again meanwhile.
    refs = store_->FindAll({meta});
    EXPECT_FALSE(refs[0].id().empty());
    refs.clear();
  }
  EXPECT_EQ(store_->stats().chunks, 0);
  EXPECT_EQ(store_->stats().device_bytes_used, 0);
}

TEST_P(ChunkStoreTest, DraftsGiveTheirMemoryBack) {
  {
    const auto draft = store_->Reserve(TestMeta(1, kSmall));
    ASSERT_TRUE(draft.ok());
    EXPECT_GT(store_->stats().device_bytes_used, 0);
  }
  EXPECT_EQ(store_->stats().device_bytes_used, 0);
  EXPECT_EQ(store_->stats().chunks, 0);
}

TEST_P(ChunkStoreTest, ReserveChecksItsLimits) {
  const auto code = [&](const ChunkMeta& meta) { return store_->Reserve(meta).status().code(); };
  ChunkMeta meta = TestMeta(1, kMaxChunkBytes);
  EXPECT_EQ(code(meta), absl::StatusCode::kOk);
  meta.bytes = kMaxChunkBytes + 1;
  EXPECT_EQ(code(meta), absl::StatusCode::kInvalidArgument);
  meta.bytes = 0;
  EXPECT_EQ(code(meta), absl::StatusCode::kInvalidArgument);
  meta = TestMeta(1, kSmall, 255);
  EXPECT_EQ(code(meta), absl::StatusCode::kOk);
  meta.priority = 256;
  EXPECT_EQ(code(meta), absl::StatusCode::kInvalidArgument);
  meta.priority = -1;
  EXPECT_EQ(code(meta), absl::StatusCode::kInvalidArgument);
  meta = TestMeta(1, kSmall);
  meta.token_ids.push_back(1);
  EXPECT_EQ(code(meta), absl::StatusCode::kInvalidArgument);
  meta.token_ids.clear();
  EXPECT_EQ(code(meta), absl::StatusCode::kInvalidArgument);
  meta = TestMeta(1, kSmall);
  meta.id = ChunkId();
  EXPECT_EQ(code(meta), absl::StatusCode::kInvalidArgument);
}

TEST_P(ChunkStoreTest, AShortChunkStartsZeroed) {
  // Leave other bytes in the arena first.
  { const std::vector<ChunkRef> refs = Put(Metas(1, 4, kQuarter)); }
  const std::vector<ChunkMeta> metas =
      MakeChunkMetas(TestNamespace(), TestTokens(9, 10), {}, kQuarter, 0);
  const auto draft = store_->Reserve(metas[0]);
  ASSERT_TRUE(draft.ok()) << draft.status();
  const auto bytes = ReadDevice(backend_.get(), store_->arena().Sub(draft->offset(), kQuarter));
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(bytes->find_first_not_of('\0'), std::string::npos);
}

TEST_P(ChunkStoreTest, TheFirstOfTwoEqualUploadsWins) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  std::vector<ChunkDraft> first;
  std::vector<ChunkDraft> second;
  first.push_back(*MakeDraft(store_.get(), backend_.get(), meta, 1));
  second.push_back(*MakeDraft(store_.get(), backend_.get(), meta, 2));
  const auto first_refs = store_->Publish(std::move(first));
  const int64_t used = store_->stats().device_bytes_used;
  const auto second_refs = store_->Publish(std::move(second));
  ASSERT_TRUE(first_refs.ok() && second_refs.ok());
  EXPECT_LT(store_->stats().device_bytes_used, used);
  EXPECT_EQ(store_->Describe(meta.id).references, 2);
  EXPECT_EQ(Check({meta}, 1), absl::OkStatus());
}

TEST_P(ChunkStoreTest, HashCollisionsPublishNothing) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  const std::vector<ChunkRef> refs = Put({meta});
  for (int field = 0; field < 4; ++field) {
    ChunkMeta other = meta;
    if (field == 0) other.token_ids[5] ^= 1;
    if (field == 1) other.parent.low ^= 1;
    if (field == 2) other.tags = {{1, 2, "x"}};
    if (field == 3) other.token_ids.pop_back();
    EXPECT_TRUE(store_->FindAll({other})[0].id().empty()) << field;
    EXPECT_TRUE(absl::IsAlreadyExists(store_->Adopt(other).status())) << field;
    std::vector<ChunkDraft> drafts;
    const ChunkMeta bystander = TestMeta(2, kSmall);
    drafts.push_back(*store_->Reserve(bystander));
    drafts.push_back(*store_->Reserve(other));
    EXPECT_TRUE(absl::IsAlreadyExists(store_->Publish(std::move(drafts)).status())) << field;
    EXPECT_TRUE(store_->FindAll({bystander})[0].id().empty());
  }
  EXPECT_EQ(store_->stats().chunks, 1);
  EXPECT_EQ(store_->Describe(meta.id).references, 1);
}

TEST_P(ChunkStoreTest, TagsMayBeCutOrNot) {
  const std::vector<ContentTag> tags = {{60, 70, "x"}};
  std::vector<ChunkMeta> metas =
      MakeChunkMetas(TestNamespace(), TestTokens(1, 128), tags, kSmall, 0);
  const std::vector<ChunkRef> refs = Put(metas);
  metas[0].tags = {{60, 64, "x"}};
  metas[1].tags = {{0, 6, "x"}};
  for (const ChunkRef& ref : store_->FindAll(metas)) EXPECT_FALSE(ref.id().empty());
}

// ---- Durability -----------------------------------------------------------------------------

TEST_P(ChunkStoreTest, PersistWritesOnceAndFlushesOncePerBatch) {
  const std::vector<ChunkMeta> metas = Metas(1, 5, kSmall);
  const std::vector<ChunkRef> refs = PutDurable(metas);
  EXPECT_EQ(disk_.calls(DiskOperation::kFlush), 1);
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 5);
  EXPECT_EQ(store_->stats().chunks_durable, 5);
  const int64_t puts = disk_.calls(DiskOperation::kPut);
  EXPECT_TRUE(store_->Persist(IdsOf(metas)).ok());
  EXPECT_EQ(disk_.calls(DiskOperation::kPut), puts);
  EXPECT_EQ(disk_.calls(DiskOperation::kFlush), 1);
}

TEST_P(ChunkStoreTest, PersistIsWhatSurvivesACrash) {
  const std::vector<ChunkMeta> durable = Metas(1, 3, kSmall);
  const std::vector<ChunkMeta> lost = Metas(10, 3, kSmall);
  {
    const std::vector<ChunkRef> refs = PutDurable(durable);
    const std::vector<ChunkRef> others = Put(lost);
    // Written, but the flush fails.
    disk_.SetHook([](DiskOperation operation, DiskTable) {
      return operation == DiskOperation::kFlush ? absl::UnavailableError("flush")
                                                : absl::OkStatus();
    });
    EXPECT_TRUE(absl::IsUnavailable(store_->Persist(IdsOf(lost))));
    EXPECT_FALSE(store_->Describe(lost[0].id).durable);
    disk_.SetHook(nullptr);
    disk_.Crash();
  }
  Open();
  std::vector<ChunkRef> refs;
  for (const ChunkMeta& meta : durable) refs.push_back(*store_->Adopt(meta));
  EXPECT_FALSE(Resident(durable[0]));
  EXPECT_EQ(Check(durable), absl::OkStatus());
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 3);
  EXPECT_EQ(store_->stats().loaded_chunks, 3);
}

TEST_P(ChunkStoreTest, PersistMayBeRepeatedAfterAnError) {
  const std::vector<ChunkMeta> metas = Metas(1, 2, kSmall);
  const std::vector<ChunkRef> refs = Put(metas);
  disk_.FailCall(1, absl::UnavailableError("put"));
  EXPECT_TRUE(absl::IsUnavailable(store_->Persist(IdsOf(metas))));
  disk_.FailCall(2, absl::UnavailableError("flush"));
  EXPECT_TRUE(absl::IsUnavailable(store_->Persist(IdsOf(metas))));
  EXPECT_EQ(store_->stats().chunks_durable, 0);
  EXPECT_TRUE(store_->Persist(IdsOf(metas)).ok());
  EXPECT_EQ(store_->stats().chunks_durable, 2);
}

// More bytes than staging holds, and chunks of the largest size.
TEST_P(ChunkStoreTest, PersistAndLoadInPieces) {
  const std::vector<ChunkMeta> quarters = Metas(1, 4, kQuarter);
  std::vector<ChunkRef> refs = PutDurable(quarters);
  const std::vector<ChunkMeta> whole = {TestMeta(9, kMaxChunkBytes)};
  const std::vector<ChunkRef> big = PutDurable(whole);
  EXPECT_EQ(store_->stats().evicted_chunks, 4);
  EXPECT_EQ(Check(quarters), absl::OkStatus());
  EXPECT_EQ(Check(whole), absl::OkStatus());
}

// ---- Room -----------------------------------------------------------------------------------

TEST_P(ChunkStoreTest, WhatIsNotDurableIsNeverEvicted) {
  const std::vector<ChunkRef> refs = Put(Metas(1, 4, kQuarter));
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Reserve(TestMeta(9, kQuarter)).status()));
  store_->TrimToWatermark();
  EXPECT_EQ(store_->stats().chunks_resident, 4);
}

TEST_P(ChunkStoreTest, WhatIsPinnedIsNeverEvicted) {
  const std::vector<ChunkMeta> metas = Metas(1, 4, kQuarter);
  const std::vector<ChunkRef> refs = PutDurable(metas);
  {
    const auto pins = store_->PinAll(IdsOf(metas));
    ASSERT_TRUE(pins.ok());
    EXPECT_TRUE(absl::IsResourceExhausted(store_->Reserve(TestMeta(9, kQuarter)).status()));
    EXPECT_TRUE(absl::IsResourceExhausted(store_->Reserve(TestMeta(9, kSmall)).status()));
    store_->TrimToWatermark();
    EXPECT_EQ(store_->stats().chunks_resident, 4);
  }
  EXPECT_TRUE(store_->Reserve(TestMeta(9, kQuarter)).ok());
}

TEST_P(ChunkStoreTest, DraftsAreNeverEvicted) {
  std::vector<ChunkDraft> drafts;
  for (const ChunkMeta& meta : Metas(1, 4, kQuarter)) drafts.push_back(*store_->Reserve(meta));
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Reserve(TestMeta(9, kQuarter)).status()));
}

TEST_P(ChunkStoreTest, PriorityThenRecencyDecidesWhatGoes) {
  const std::vector<ChunkMeta> metas = {TestMeta(1, kQuarter, 5), TestMeta(2, kQuarter, 0),
                                        TestMeta(3, kQuarter, 0), TestMeta(4, kQuarter, 0)};
  const std::vector<ChunkRef> refs = PutDurable(metas);
  { ASSERT_TRUE(store_->PinAll({metas[1].id}).ok()); }
  // Order of value: 3, 4, 2 (pinned last), 1 (priority).
  const size_t order[] = {2, 3, 1, 0};
  std::vector<ChunkDraft> drafts;
  for (size_t i = 0; i < 4; ++i) {
    drafts.push_back(*store_->Reserve(TestMeta(10 + i, kQuarter)));
    for (size_t j = 0; j < 4; ++j) EXPECT_EQ(Resident(metas[order[j]]), j > i) << i << " " << j;
  }
  EXPECT_EQ(store_->stats().evicted_chunks, 4);
}

TEST_P(ChunkStoreTest, AnotherReferenceMayRaiseThePriority) {
  const std::vector<ChunkMeta> metas = Metas(1, 4, kQuarter);
  const std::vector<ChunkRef> refs = PutDurable(metas);
  const std::vector<ChunkRef> important = store_->FindAll({TestMeta(1, kQuarter, 9)});
  const auto draft = store_->Reserve(TestMeta(10, kQuarter));
  EXPECT_TRUE(Resident(metas[0]));
  EXPECT_FALSE(Resident(metas[1]));
}

// Room for another size needs a whole superblock; a pinned chunk in it keeps all of it.
TEST_P(ChunkStoreTest, NothingIsEvictedInVain) {
  const std::vector<ChunkMeta> metas = Metas(1, 4, kQuarter);
  const std::vector<ChunkRef> refs = PutDurable(metas);
  {
    const auto pin = store_->PinAll({metas[2].id});
    EXPECT_TRUE(absl::IsResourceExhausted(store_->Reserve(TestMeta(9, kSmall)).status()));
    EXPECT_EQ(store_->stats().chunks_resident, 4);
  }
  EXPECT_TRUE(store_->Reserve(TestMeta(9, kSmall)).ok());
  EXPECT_EQ(store_->stats().chunks_resident, 0);
}

TEST_P(ChunkStoreTest, TrimStopsAtTheWatermark) {
  const std::vector<ChunkMeta> metas = Metas(1, 4, kQuarter);
  const std::vector<ChunkRef> refs = PutDurable(metas);
  store_->TrimToWatermark();
  EXPECT_EQ(store_->stats().device_bytes_used, kSuperblockBytes / 2);
  EXPECT_FALSE(Resident(metas[0]));
  EXPECT_TRUE(Resident(metas[3]));
  store_->TrimToWatermark();
  EXPECT_EQ(store_->stats().chunks_resident, 2);
}

TEST_P(ChunkStoreTest, PinAllTakesAllOrNothing) {
  const std::vector<ChunkMeta> metas = Metas(1, 5, kQuarter);
  std::vector<ChunkRef> refs = PutDurable({metas.begin(), metas.begin() + 4});
  std::vector<ChunkRef> last = PutDurable({metas[4]});
  EXPECT_TRUE(absl::IsResourceExhausted(store_->PinAll(IdsOf(metas)).status()));
  EXPECT_EQ(store_->stats().chunks_pinned, 0);
  std::vector<ChunkId> with_unknown = {metas[0].id, ChunkId{1, 1}};
  EXPECT_TRUE(absl::IsNotFound(store_->PinAll(with_unknown).status()));
  EXPECT_EQ(store_->stats().chunks_pinned, 0);
  // One chunk twice is two pins.
  const auto twice = store_->PinAll({metas[0].id, metas[0].id});
  ASSERT_TRUE(twice.ok());
  EXPECT_EQ((*twice)[0].offset(), (*twice)[1].offset());
  EXPECT_EQ(store_->stats().chunks_pinned, 1);
}

// ---- Bad records ----------------------------------------------------------------------------

TEST_P(ChunkStoreTest, ABadRecordIsQuarantinedAndReplaced) {
  const std::vector<ChunkMeta> metas = Metas(1, 3, kSmall);
  std::vector<ChunkRef> refs = PutDurable(metas);
  const std::vector<ChunkRef> pressure = PutDurable(Metas(10, 4, kQuarter));
  ASSERT_FALSE(Resident(metas[1]));
  disk_.Corrupt(DiskTable::kChunks, metas[1].id.ToBytes(), 5000, 0x40);

  EXPECT_TRUE(absl::IsDataLoss(store_->PinAll(IdsOf(metas)).status()));
  EXPECT_EQ(store_->stats().quarantined_chunks, 1);
  EXPECT_EQ(store_->stats().chunks_pinned, 0);
  EXPECT_TRUE(absl::IsDataLoss(store_->PinAll({metas[1].id}).status()));
  EXPECT_EQ(store_->stats().quarantined_chunks, 1);
  EXPECT_TRUE(absl::IsDataLoss(store_->Persist({metas[1].id})));
  EXPECT_FALSE(store_->Describe(metas[1].id).durable);
  std::vector<ChunkRef> found = store_->FindAll(metas);
  EXPECT_FALSE(found[0].id().empty());
  EXPECT_TRUE(found[1].id().empty());

  // A new upload brings it back, for the old refs too.
  std::vector<ChunkDraft> drafts;
  drafts.push_back(*MakeDraft(store_.get(), backend_.get(), metas[1], 7));
  const auto replaced = store_->Publish(std::move(drafts));
  ASSERT_TRUE(replaced.ok());
  EXPECT_EQ(store_->Describe(metas[1].id).references, 2);
  EXPECT_EQ(Check({metas[1]}, 7), absl::OkStatus());
  EXPECT_TRUE(store_->Persist({metas[1].id}).ok());
  const std::vector<ChunkRef> more_pressure = PutDurable(Metas(20, 4, kQuarter));
  ASSERT_FALSE(Resident(metas[1]));
  EXPECT_EQ(Check({metas[1]}, 7), absl::OkStatus());
  EXPECT_FALSE(store_->FindAll(metas)[1].id().empty());
}

TEST_P(ChunkStoreTest, AMissingRecordIsLostData) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  const auto ref = store_->Adopt(meta);
  ASSERT_TRUE(ref.ok());
  EXPECT_TRUE(absl::IsDataLoss(store_->PinAll({meta.id}).status()));
  EXPECT_EQ(store_->stats().quarantined_chunks, 1);
  EXPECT_EQ(store_->stats().device_bytes_used, 0);
}

TEST_P(ChunkStoreTest, ADiskThatIsDownIsNotABadRecord) {
  const ChunkMeta meta = TestMeta(1, kQuarter);
  const std::vector<ChunkRef> refs = PutDurable({meta});
  const std::vector<ChunkRef> pressure = PutDurable(Metas(10, 4, kQuarter));
  disk_.FailCall(1, absl::UnavailableError("down"));
  EXPECT_TRUE(absl::IsUnavailable(store_->PinAll({meta.id}).status()));
  EXPECT_EQ(store_->stats().quarantined_chunks, 0);
  EXPECT_EQ(Check({meta}), absl::OkStatus());
}

TEST_P(ChunkStoreTest, AForgottenQuarantinedChunkLeavesTheDisk) {
  const ChunkMeta meta = TestMeta(1, kQuarter);
  std::vector<ChunkRef> refs = PutDurable({meta});
  std::vector<ChunkRef> pressure = PutDurable(Metas(10, 4, kQuarter));
  disk_.Corrupt(DiskTable::kChunks, meta.id.ToBytes(), 0, 1);
  EXPECT_TRUE(absl::IsDataLoss(store_->PinAll({meta.id}).status()));
  refs.clear();
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_FALSE(disk_.Value(DiskTable::kChunks, meta.id.ToBytes()).has_value());
}

// ---- Garbage --------------------------------------------------------------------------------

TEST_P(ChunkStoreTest, ForgottenChunksLeaveTheDiskWithTheGarbage) {
  std::vector<ChunkRef> refs = PutDurable(Metas(1, 3, kSmall));
  refs.pop_back();
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 3);
  disk_.FailCall(1, absl::UnavailableError("down"));
  EXPECT_TRUE(absl::IsUnavailable(store_->CollectGarbage()));
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 3);
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 2);
  const int64_t deletes = disk_.calls(DiskOperation::kDelete);
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_EQ(disk_.calls(DiskOperation::kDelete), deletes);
}

TEST_P(ChunkStoreTest, AChunkThatComesBackIsNotGarbage) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  std::vector<ChunkRef> refs = PutDurable({meta});
  refs.clear();
  refs = PutDurable({meta});
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 1);
  // A chunk in memory only, of which an older record is still there, takes it along at its end.
  refs.clear();
  refs = Put({meta});
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 1);
  refs.clear();
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 0);
}

TEST_P(ChunkStoreTest, SweepDeletesWhatNobodyKnows) {
  const std::vector<ChunkMeta> metas = Metas(1, 5, kSmall);
  { const std::vector<ChunkRef> refs = PutDurable(metas); }
  const std::string foreign = "foreign";
  const DiskEntry entry{foreign, "x"};
  ASSERT_TRUE(disk_.Put(DiskTable::kChunks, absl::MakeConstSpan(&entry, 1)).ok());
  Open();
  const auto kept = store_->Adopt(metas[2]);
  const auto swept = store_->SweepOrphans();
  ASSERT_TRUE(swept.ok());
  EXPECT_EQ(*swept, 5);
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 1);
  EXPECT_EQ(Check({metas[2]}), absl::OkStatus());
}

}  // namespace
}  // namespace semshare::testing
