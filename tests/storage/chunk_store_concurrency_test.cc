// Races of storage/chunk_store.cc: loads that meet, deletions that meet publishes, and threads that
// do everything at once. Order is forced by hooks of the disk, never by time.
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <thread>

#include "kernels/base/mutex.h"
#include "storage/arena.h"
#include "storage/chunk_store.h"
#include "tests/storage/backends.h"
#include "tests/storage/store_testing.h"
#include "tests/testing/memory_disk_tier.h"

namespace semshare::testing {
namespace {

constexpr int64_t kSmall = 64 << 10;

// Holds up one kind of disk operation until it is opened.
class Gate {
 public:
  explicit Gate(DiskOperation operation) : operation_(operation) {}

  MemoryDiskTier::Hook hook() {
    return [this](DiskOperation operation, DiskTable) {
      if (operation != operation_) return absl::OkStatus();
      const MutexLock lock(&mutex_);
      ++arrived_;
      changed_.NotifyAll();
      while (!open_) changed_.Wait(&mutex_);
      return status_;
    };
  }

  void AwaitArrival() {
    const MutexLock lock(&mutex_);
    while (arrived_ == 0) changed_.Wait(&mutex_);
  }

  void Open(absl::Status status = absl::OkStatus()) {
    const MutexLock lock(&mutex_);
    open_ = true;
    status_ = std::move(status);
    changed_.NotifyAll();
  }

 private:
  const DiskOperation operation_;
  Mutex mutex_;
  CondVar changed_;
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

class ChunkStoreRaceTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override {
    auto backend = GetParam().make();
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    ChunkStoreOptions options;
    options.device_memory_bytes = kSuperblockBytes;
    options.staging_bytes = kMaxChunkBytes;
    options.lane_timeout_ms = 60000;
    auto store = ChunkStore::Create(options, backend_.get(), &disk_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  std::vector<ChunkRef> PutDurable(const std::vector<ChunkMeta>& metas) {
    auto refs = PutChunks(store_.get(), backend_.get(), metas);
    EXPECT_TRUE(refs.ok()) << refs.status();
    EXPECT_TRUE(store_->Persist(IdsOf(metas)).ok());
    return *std::move(refs);
  }

  // Drops every durable copy in memory.
  void EvictAll() {
    const auto draft = store_->Reserve(TestMeta(999, kMaxChunkBytes));
    EXPECT_TRUE(draft.ok()) << draft.status();
  }

  absl::Status Check(const std::vector<ChunkMeta>& metas, uint64_t version = 0) {
    return CheckPinned(store_.get(), backend_.get(), metas, version);
  }

  std::unique_ptr<Backend> backend_;
  MemoryDiskTier disk_;
  std::unique_ptr<ChunkStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Backends, ChunkStoreRaceTest, ::testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(ChunkStoreRaceTest, ASecondPinWaitsForTheLoad) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  const std::vector<ChunkRef> refs = PutDurable({meta});
  EvictAll();
  Gate gate(DiskOperation::kGet);
  disk_.SetHook(gate.hook());
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] { EXPECT_EQ(Check({meta}), absl::OkStatus()); });
  }
  gate.AwaitArrival();
  EXPECT_FALSE(store_->Describe(meta.id).resident);
  gate.Open();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store_->stats().loaded_chunks, 1);
  EXPECT_EQ(disk_.calls(DiskOperation::kGet), 1);
  EXPECT_EQ(store_->stats().chunks_pinned, 0);
}

TEST_P(ChunkStoreRaceTest, AChunkWhoseLastRefGoesDuringTheLoadStaysForThePin) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  std::vector<ChunkRef> refs = PutDurable({meta});
  EvictAll();
  Gate gate(DiskOperation::kGet);
  disk_.SetHook(gate.hook());
  std::thread thread([&] { EXPECT_EQ(Check({meta}), absl::OkStatus()); });
  gate.AwaitArrival();
  refs.clear();
  EXPECT_EQ(store_->stats().chunks, 1);
  gate.Open();
  thread.join();
  EXPECT_EQ(store_->stats().chunks, 0);
  EXPECT_EQ(store_->stats().device_bytes_used, 0);
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 0);
}

// The load finds a bad record while another upload of the chunk is about to be published.
TEST_P(ChunkStoreRaceTest, APublishDuringABadLoadSavesTheChunk) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  const std::vector<ChunkRef> refs = PutDurable({meta});
  EvictAll();
  disk_.Corrupt(DiskTable::kChunks, meta.id.ToBytes(), 1000, 1);
  std::vector<ChunkDraft> drafts;
  drafts.push_back(*MakeDraft(store_.get(), backend_.get(), meta, 3));
  Gate gate(DiskOperation::kGet);
  disk_.SetHook(gate.hook());
  std::thread loader([&] { EXPECT_TRUE(absl::IsDataLoss(store_->PinAll({meta.id}).status())); });
  gate.AwaitArrival();
  std::optional<absl::StatusOr<std::vector<ChunkRef>>> published;
  std::thread publisher([&] { published = store_->Publish(std::move(drafts)); });
  gate.Open();
  loader.join();
  publisher.join();
  ASSERT_TRUE(published->ok());
  EXPECT_EQ(Check({meta}, 3), absl::OkStatus());
  EXPECT_TRUE(store_->Persist({meta.id}).ok());
  EvictAll();
  EXPECT_EQ(Check({meta}, 3), absl::OkStatus());
}

TEST_P(ChunkStoreRaceTest, ASecondPersistReturnsOnlyWhenDurable) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  auto refs = PutChunks(store_.get(), backend_.get(), {meta});
  ASSERT_TRUE(refs.ok());
  Gate gate(DiskOperation::kFlush);
  disk_.SetHook(gate.hook());
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      EXPECT_TRUE(store_->Persist({meta.id}).ok());
      EXPECT_TRUE(store_->Describe(meta.id).durable);
    });
  }
  gate.AwaitArrival();
  EXPECT_FALSE(store_->Describe(meta.id).durable);
  gate.Open();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(disk_.calls(DiskOperation::kPut), 1);
  disk_.Crash();
  EvictAll();
  EXPECT_EQ(Check({meta}), absl::OkStatus());
}

TEST_P(ChunkStoreRaceTest, AChunkWhoseLastRefGoesDuringPersistIsGarbage) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  auto refs = PutChunks(store_.get(), backend_.get(), {meta});
  ASSERT_TRUE(refs.ok());
  Gate gate(DiskOperation::kFlush);
  disk_.SetHook(gate.hook());
  std::thread thread([&] { EXPECT_TRUE(store_->Persist({meta.id}).ok()); });
  gate.AwaitArrival();
  refs->clear();
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_EQ(store_->stats().chunks, 1);
  gate.Open();
  thread.join();
  EXPECT_EQ(store_->stats().chunks, 0);
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 0);
}

// The deletion of the old record is in flight when the chunk comes back and is made durable: the
// new record must be written after the deletion.
TEST_P(ChunkStoreRaceTest, ADeletionInFlightDoesNotTakeTheNewRecord) {
  for (const bool fails : {false, true}) {
    const ChunkMeta meta = TestMeta(fails ? 1 : 2, kSmall);
    std::vector<ChunkRef> refs = PutDurable({meta});
    refs.clear();
    Gate gate(DiskOperation::kDelete);
    disk_.SetHook(gate.hook());
    std::thread collector([&] { EXPECT_EQ(store_->CollectGarbage().ok(), !fails); });
    gate.AwaitArrival();
    auto again = PutChunks(store_.get(), backend_.get(), {meta});
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(Check({meta}), absl::OkStatus());
    std::thread persister([&] { EXPECT_TRUE(store_->Persist({meta.id}).ok()); });
    gate.Open(fails ? absl::UnavailableError("down") : absl::OkStatus());
    collector.join();
    persister.join();
    disk_.SetHook(nullptr);
    disk_.Crash();
    EvictAll();
    EXPECT_EQ(Check({meta}), absl::OkStatus());
    again->clear();
    EXPECT_TRUE(store_->CollectGarbage().ok());
    EXPECT_EQ(disk_.size(DiskTable::kChunks), 0);
  }
}

TEST_P(ChunkStoreRaceTest, AFailedDeletionOfAChunkThatCameBackIsTriedAgainAtItsEnd) {
  const ChunkMeta meta = TestMeta(1, kSmall);
  std::vector<ChunkRef> refs = PutDurable({meta});
  refs.clear();
  Gate gate(DiskOperation::kDelete);
  disk_.SetHook(gate.hook());
  std::thread collector([&] { EXPECT_FALSE(store_->CollectGarbage().ok()); });
  gate.AwaitArrival();
  auto again = PutChunks(store_.get(), backend_.get(), {meta});
  ASSERT_TRUE(again.ok());
  gate.Open(absl::UnavailableError("down"));
  collector.join();
  disk_.SetHook(nullptr);
  again->clear();
  EXPECT_TRUE(store_->CollectGarbage().ok());
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 0);
}

// Two calls that each load what the other one waits for.
TEST_P(ChunkStoreRaceTest, CrossedPinsDoNotBlockEachOther) {
  const std::vector<ChunkMeta> metas = {TestMeta(1, kSmall), TestMeta(2, kSmall),
                                        TestMeta(3, kSmall)};
  const std::vector<ChunkMeta> reversed(metas.rbegin(), metas.rend());
  const std::vector<ChunkRef> refs = PutDurable(metas);
  for (int round = 0; round < 20; ++round) {
    EvictAll();
    std::thread one([&] { EXPECT_EQ(Check(metas), absl::OkStatus()); });
    std::thread two([&] { EXPECT_EQ(Check(reversed), absl::OkStatus()); });
    one.join();
    two.join();
  }
  EXPECT_EQ(store_->stats().chunks_pinned, 0);
}

// Everything at once: prompts that share prefixes come, are made durable or not, are pinned,
// loaded, evicted, dropped and collected by several threads. Every pinned byte must be right at any
// time.
TEST_P(ChunkStoreRaceTest, ThreadsPutPinAndDrop) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 25;
  constexpr int64_t kBytes = kSuperblockBytes / 16;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937_64 random(static_cast<uint64_t>(t) + 100);
      std::vector<std::pair<std::vector<ChunkMeta>, std::vector<ChunkRef>>> held;
      for (int round = 0; round < kRounds; ++round) {
        // 1 to 3 chunks of one of 6 prompts: 18 chunks for 16 places.
        const std::vector<ChunkMeta> metas =
            MakeChunkMetas(TestNamespace(), TestTokens(random() % 6, 64 * (1 + random() % 3)), {},
                           kBytes, static_cast<int>(random() % 2));
        auto refs = PutChunks(store_.get(), backend_.get(), metas);
        if (refs.ok()) {
          if (random() % 4 != 0) {
            EXPECT_EQ(store_->Persist(IdsOf(metas)), absl::OkStatus());
          }
          held.emplace_back(metas, *std::move(refs));
        } else {
          EXPECT_TRUE(absl::IsResourceExhausted(refs.status())) << refs.status();
        }
        if (held.size() > 2 || (!held.empty() && random() % 3 == 0)) {
          held.erase(held.begin() + static_cast<int64_t>(random() % held.size()));
        }
        for (const auto& [known, known_refs] : held) {
          const absl::Status status = Check(known);
          EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
        }
        if (random() % 4 == 0) {
          EXPECT_TRUE(store_->CollectGarbage().ok());
        }
        if (random() % 8 == 0) store_->TrimToWatermark();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(store_->CollectGarbage().ok());
  const ChunkStoreStats stats = store_->stats();
  EXPECT_EQ(stats.chunks, 0);
  EXPECT_EQ(stats.chunks_resident, 0);
  EXPECT_EQ(stats.chunks_durable, 0);
  EXPECT_EQ(stats.chunks_pinned, 0);
  EXPECT_EQ(stats.device_bytes_used, 0);
  EXPECT_EQ(stats.quarantined_chunks, 0);
  EXPECT_EQ(disk_.size(DiskTable::kChunks), 0);
}

}  // namespace
}  // namespace semshare::testing
