#include "storage/catalog.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "storage/arena.h"
#include "tests/storage/backends.h"
#include "tests/storage/store_testing.h"
#include "tests/testing/memory_disk_tier.h"

namespace semshare::testing {
namespace {

constexpr int64_t kBytes = 16 << 10;

class CatalogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto backend = BackendCases()[0].make();
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    Open();
  }

  void Open() {
    catalog_.reset();
    store_.reset();
    ChunkStoreOptions options;
    options.device_memory_bytes = kSuperblockBytes;
    options.staging_bytes = kMaxChunkBytes;
    auto store = ChunkStore::Create(options, backend_.get(), &disk_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    catalog_ = std::make_unique<Catalog>(&disk_, store_.get());
  }

  static Manifest MakeManifest(uint64_t seed, bool durable, std::string alias = "",
                               NamespaceId ns = TestNamespace()) {
    Manifest manifest;
    manifest.ns = ns;
    manifest.token_ids = TestTokens(seed, 100);
    manifest.tags = {{10, 90, "image"}};
    manifest.id = MakeReferenceId(ns, manifest.token_ids, manifest.tags);
    manifest.chunks = MakeChunkChain(ns, manifest.token_ids, manifest.tags);
    manifest.chunk_bytes = kBytes;
    manifest.durable = durable;
    manifest.alias = std::move(alias);
    manifest.created_unix_ms = 1000;
    return manifest;
  }

  static std::vector<ChunkMeta> MetasOf(const Manifest& manifest) {
    return MakeChunkMetas(manifest.ns, manifest.token_ids, manifest.tags, manifest.chunk_bytes,
                          manifest.priority);
  }

  absl::StatusOr<ReferencePtr> Put(const Manifest& manifest) {
    auto refs = PutChunks(store_.get(), backend_.get(), MetasOf(manifest));
    EXPECT_TRUE(refs.ok()) << refs.status();
    if (manifest.durable) {
      EXPECT_TRUE(store_->Persist(manifest.chunks).ok());
    }
    return catalog_->Put(manifest, *std::move(refs));
  }

  std::unique_ptr<Backend> backend_;
  MemoryDiskTier disk_;
  std::unique_ptr<ChunkStore> store_;
  std::unique_ptr<Catalog> catalog_;
};

TEST_F(CatalogTest, PutAndFind) {
  const Manifest manifest = MakeManifest(1, false, "a");
  const auto put = Put(manifest);
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(catalog_->Find(manifest.ns, manifest.id), *put);
  EXPECT_EQ(catalog_->FindByAlias(manifest.ns, "a"), *put);
  EXPECT_EQ(catalog_->Find(manifest.ns, {1, 2}), nullptr);
  EXPECT_EQ(catalog_->FindByAlias(manifest.ns, "b"), nullptr);
  const NamespaceId other = MakeNamespaceId("other", "f");
  EXPECT_EQ(catalog_->Find(other, manifest.id), nullptr);
  EXPECT_EQ(catalog_->FindByAlias(other, "a"), nullptr);
  EXPECT_EQ(catalog_->size(), 1);
  EXPECT_EQ(catalog_->size(manifest.ns), 1);
  EXPECT_EQ(catalog_->size(other), 0);
  EXPECT_EQ(disk_.size(DiskTable::kCatalog), 0);
}

TEST_F(CatalogTest, DurableReferencesSurviveAndOthersDoNot) {
  const Manifest durable = MakeManifest(1, true, "a");
  const Manifest volatile_one = MakeManifest(2, false, "b");
  ASSERT_TRUE(Put(durable).ok());
  ASSERT_TRUE(Put(volatile_one).ok());
  disk_.Crash();
  Open();
  const auto loaded = catalog_->Load();
  ASSERT_TRUE(loaded.ok());
  ASSERT_EQ(loaded->size(), 1U);
  const ReferencePtr reference = catalog_->Find(durable.ns, durable.id);
  ASSERT_NE(reference, nullptr);
  EXPECT_EQ(reference->manifest.token_ids, durable.token_ids);
  EXPECT_EQ(reference->manifest.tags, durable.tags);
  EXPECT_EQ(reference->used_unix_ms, 1000);
  EXPECT_EQ(catalog_->FindByAlias(durable.ns, "a"), reference);
  EXPECT_EQ(catalog_->bad_manifests(), 0);
  EXPECT_EQ(store_->stats().chunks, 2);
  EXPECT_EQ(CheckPinned(store_.get(), backend_.get(), MetasOf(durable)), absl::OkStatus());
  // An upload of the same prompt finds the adopted chunks.
  for (const ChunkRef& ref : store_->FindAll(MetasOf(durable))) EXPECT_FALSE(ref.id().empty());
}

TEST_F(CatalogTest, ABadManifestIsKeptAsideAndCounted) {
  ASSERT_TRUE(Put(MakeManifest(1, true)).ok());
  ASSERT_TRUE(Put(MakeManifest(2, true)).ok());
  const Manifest bad = MakeManifest(1, true);
  const std::string key = "m" + bad.ns.ToBytes() + bad.id.ToBytes();
  disk_.Corrupt(DiskTable::kCatalog, key, 60, 1);
  const std::string bytes = *disk_.Value(DiskTable::kCatalog, key);
  Open();
  ASSERT_TRUE(catalog_->Load().ok());
  EXPECT_EQ(catalog_->size(), 1);
  EXPECT_EQ(catalog_->bad_manifests(), 1);
  EXPECT_EQ(catalog_->Find(bad.ns, bad.id), nullptr);
  EXPECT_FALSE(disk_.Value(DiskTable::kCatalog, key).has_value());
  EXPECT_EQ(disk_.Value(DiskTable::kCatalog, "q" + key), bytes);
  Open();
  ASSERT_TRUE(catalog_->Load().ok());
  EXPECT_EQ(catalog_->bad_manifests(), 0);
  EXPECT_EQ(catalog_->size(), 1);
}

TEST_F(CatalogTest, AManifestUnderAnotherKeyOrWithOtherChunksIsBad) {
  Manifest manifest = MakeManifest(1, true);
  const std::string value = EncodeManifest(manifest);
  manifest.chunks[1].low ^= 1;
  const std::string wrong_chunks = EncodeManifest(manifest);
  const std::vector<DiskEntry> entries = {
      {"m" + manifest.ns.ToBytes() + Id128{1, 1}.ToBytes(), value},
      {"m" + manifest.ns.ToBytes() + manifest.id.ToBytes(), wrong_chunks},
      {"m", value}};
  ASSERT_TRUE(disk_.Put(DiskTable::kCatalog, entries).ok());
  ASSERT_TRUE(catalog_->Load().ok());
  EXPECT_EQ(catalog_->size(), 0);
  EXPECT_EQ(catalog_->bad_manifests(), 3);
  EXPECT_EQ(store_->stats().chunks, 0);
}

TEST_F(CatalogTest, AliasesNameOneReference) {
  const Manifest one = MakeManifest(1, true, "a");
  Manifest two = MakeManifest(2, true, "a");
  ASSERT_TRUE(Put(one).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(Put(two).status()));
  EXPECT_EQ(catalog_->size(), 1);
  EXPECT_EQ(disk_.size(DiskTable::kCatalog), 1);
  // Another namespace has its own aliases.
  EXPECT_TRUE(Put(MakeManifest(3, true, "a", MakeNamespaceId("other", "f"))).ok());
  two.alias = "b";
  ASSERT_TRUE(Put(two).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(
      catalog_->Update(two.ns, two.id, [](Manifest* m) { m->alias = "a"; }).status()));
  EXPECT_EQ(catalog_->FindByAlias(two.ns, "b")->manifest.id, two.id);
  // A name that is given up may be taken.
  ASSERT_TRUE(catalog_->Update(one.ns, one.id, [](Manifest* m) { m->alias = "c"; }).ok());
  ASSERT_TRUE(catalog_->Update(two.ns, two.id, [](Manifest* m) { m->alias = "a"; }).ok());
  EXPECT_EQ(catalog_->FindByAlias(two.ns, "a")->manifest.id, two.id);
  EXPECT_EQ(catalog_->FindByAlias(two.ns, "b"), nullptr);
  ASSERT_TRUE(catalog_->Delete(two.ns, two.id).ok());
  EXPECT_EQ(catalog_->FindByAlias(two.ns, "a"), nullptr);
  ASSERT_TRUE(catalog_->Update(one.ns, one.id, [](Manifest* m) { m->alias = "a"; }).ok());
}

TEST_F(CatalogTest, AFailedPutLeavesNothing) {
  const Manifest manifest = MakeManifest(1, true, "a");
  auto refs = PutChunks(store_.get(), backend_.get(), MetasOf(manifest));
  ASSERT_TRUE(refs.ok());
  ASSERT_TRUE(store_->Persist(manifest.chunks).ok());
  disk_.FailCall(1, absl::UnavailableError("down"));
  EXPECT_TRUE(absl::IsUnavailable(catalog_->Put(manifest, *std::move(refs)).status()));
  EXPECT_EQ(catalog_->size(), 0);
  EXPECT_EQ(store_->stats().chunks, 0);
  // The alias is free again.
  EXPECT_TRUE(Put(MakeManifest(2, true, "a")).ok());
}

TEST_F(CatalogTest, PutOfTheSameIdReplaces) {
  Manifest manifest = MakeManifest(1, true, "a");
  ASSERT_TRUE(Put(manifest).ok());
  catalog_->Find(manifest.ns, manifest.id)->used_unix_ms = 5000;
  manifest.alias.clear();
  manifest.durable = false;
  manifest.expires_unix_ms = 77;
  {
    const auto replaced = Put(manifest);
    ASSERT_TRUE(replaced.ok());
    EXPECT_EQ((*replaced)->manifest.alias, "a");
    EXPECT_TRUE((*replaced)->manifest.durable);
    EXPECT_EQ((*replaced)->used_unix_ms, 5000);
    EXPECT_EQ(catalog_->size(), 1);
    EXPECT_EQ(catalog_->FindByAlias(manifest.ns, "a"), *replaced);
  }
  Open();
  ASSERT_TRUE(catalog_->Load().ok());
  EXPECT_EQ(catalog_->Find(manifest.ns, manifest.id)->manifest.expires_unix_ms, 77);
}

TEST_F(CatalogTest, PutChecksItsArguments) {
  Manifest manifest = MakeManifest(1, false);
  EXPECT_TRUE(absl::IsInvalidArgument(catalog_->Put(manifest, {}).status()));
  manifest.priority = 255;
  EXPECT_TRUE(Put(manifest).ok());
  manifest.priority = 256;
  auto refs = store_->FindAll(MetasOf(MakeManifest(1, false)));
  EXPECT_TRUE(absl::IsInvalidArgument(catalog_->Put(manifest, std::move(refs)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      catalog_->Update(manifest.ns, manifest.id, [](Manifest* m) { m->importance = {1.0F}; })
          .status()));
}

TEST_F(CatalogTest, UpdateChangesWhatItMayAndNothingElse) {
  const Manifest manifest = MakeManifest(1, true);
  ASSERT_TRUE(Put(manifest).ok());
  const auto edit = [](Manifest* m) {
    m->pinned = true;
    m->priority = 9;
    m->expires_unix_ms = 5;
    m->importance.assign(m->token_ids.size(), 1.0F);
    m->token_ids.clear();
    m->chunks.clear();
    m->id = {};
  };
  ASSERT_TRUE(catalog_->Update(manifest.ns, manifest.id, edit).ok());
  Open();
  ASSERT_TRUE(catalog_->Load().ok());
  const ReferencePtr reference = catalog_->Find(manifest.ns, manifest.id);
  ASSERT_NE(reference, nullptr);
  EXPECT_TRUE(reference->manifest.pinned);
  EXPECT_EQ(reference->manifest.priority, 9);
  EXPECT_EQ(reference->manifest.expires_unix_ms, 5);
  EXPECT_EQ(reference->manifest.token_ids, manifest.token_ids);
  EXPECT_EQ(reference->manifest.importance.size(), manifest.token_ids.size());
  EXPECT_EQ(reference->chunks.size(), 2U);
  EXPECT_TRUE(absl::IsNotFound(catalog_->Update(manifest.ns, {1, 1}, [](Manifest*) {}).status()));
}

TEST_F(CatalogTest, UpdateMayChangeDurability) {
  const Manifest manifest = MakeManifest(1, false);
  ASSERT_TRUE(Put(manifest).ok());
  ASSERT_TRUE(store_->Persist(manifest.chunks).ok());
  const auto set = [&](bool durable) {
    return catalog_->Update(manifest.ns, manifest.id,
                            [durable](Manifest* m) { m->durable = durable; });
  };
  ASSERT_TRUE(set(true).ok());
  EXPECT_EQ(disk_.size(DiskTable::kCatalog), 1);
  ASSERT_TRUE(set(false).ok());
  EXPECT_EQ(disk_.size(DiskTable::kCatalog), 0);
}

// The old entry may hold chunks that are quarantined: FindAll would not give them to the new one.
TEST_F(CatalogTest, UpdateKeepsQuarantinedChunks) {
  const Manifest manifest = MakeManifest(1, true);
  ASSERT_TRUE(Put(manifest).ok());
  Open();
  ASSERT_TRUE(catalog_->Load().ok());
  disk_.Corrupt(DiskTable::kChunks, manifest.chunks[0].ToBytes(), 0, 1);
  EXPECT_TRUE(absl::IsDataLoss(store_->PinAll(manifest.chunks).status()));
  ASSERT_TRUE(
      catalog_->Update(manifest.ns, manifest.id, [](Manifest* m) { m->pinned = true; }).ok());
  EXPECT_EQ(store_->Describe(manifest.chunks[0]).references, 1);
  EXPECT_TRUE(absl::IsDataLoss(store_->PinAll(manifest.chunks).status()));
}

TEST_F(CatalogTest, DeleteOfAnOldEntrySparesTheNewOne) {
  const Manifest manifest = MakeManifest(1, true);
  const auto old = Put(manifest);
  ASSERT_TRUE(old.ok());
  const auto refreshed = Put(manifest);
  ASSERT_TRUE(refreshed.ok());
  EXPECT_TRUE(absl::IsNotFound(catalog_->Delete(manifest.ns, manifest.id, *old).status()));
  EXPECT_EQ(catalog_->Find(manifest.ns, manifest.id), *refreshed);
  EXPECT_EQ(disk_.size(DiskTable::kCatalog), 1);
  EXPECT_TRUE(catalog_->Delete(manifest.ns, manifest.id, *refreshed).ok());
  EXPECT_EQ(catalog_->size(), 0);
}

TEST_F(CatalogTest, DeleteTakesItFromDiskFirst) {
  const Manifest manifest = MakeManifest(1, true, "a");
  ASSERT_TRUE(Put(manifest).ok());
  disk_.FailCall(1, absl::UnavailableError("down"));
  EXPECT_TRUE(absl::IsUnavailable(catalog_->Delete(manifest.ns, manifest.id).status()));
  EXPECT_EQ(catalog_->size(), 1);
  {
    const auto deleted = catalog_->Delete(manifest.ns, manifest.id);
    ASSERT_TRUE(deleted.ok());
    EXPECT_EQ(disk_.size(DiskTable::kCatalog), 0);
    EXPECT_EQ(catalog_->size(manifest.ns), 0);
    // Whoever holds the reference keeps its chunks.
    EXPECT_EQ(store_->stats().chunks, 2);
  }
  EXPECT_EQ(store_->stats().chunks, 0);
  EXPECT_TRUE(absl::IsNotFound(catalog_->Delete(manifest.ns, manifest.id).status()));
}

TEST_F(CatalogTest, PrefixesOfIds) {
  std::vector<ReferenceId> ids;
  for (uint64_t i = 0; i < 40; ++i) {
    const auto put = Put(MakeManifest(i, false));
    ASSERT_TRUE(put.ok());
    ids.push_back((*put)->manifest.id);
  }
  ASSERT_TRUE(Put(MakeManifest(1, false, "", MakeNamespaceId("other", "f"))).ok());
  std::sort(ids.begin(), ids.end());
  const auto find = [&](const std::string& prefix, int limit) {
    std::vector<ReferenceId> found;
    for (const ReferencePtr& reference : catalog_->FindByPrefix(TestNamespace(), prefix, limit)) {
      found.push_back(reference->manifest.id);
    }
    return found;
  };
  EXPECT_EQ(find("", 100), ids);
  EXPECT_EQ(find("", 40), ids);
  EXPECT_EQ(find("", 39).size(), 39U);
  for (const size_t length : {1, 2, 15, 16, 17, 31, 32}) {
    for (const ReferenceId& id : ids) {
      const std::string prefix = id.ToHex().substr(0, length);
      std::vector<ReferenceId> expected;
      for (const ReferenceId& other : ids) {
        if (other.ToHex().starts_with(prefix)) expected.push_back(other);
      }
      EXPECT_EQ(find(prefix, 100), expected) << prefix;
    }
  }
  EXPECT_TRUE(find(ids[0].ToHex() + "0", 100).empty());
  EXPECT_TRUE(find("xyz", 100).empty());
}

TEST_F(CatalogTest, ListPages) {
  const NamespaceId other = MakeNamespaceId("other", "f");
  for (uint64_t i = 0; i < 7; ++i) ASSERT_TRUE(Put(MakeManifest(i, false)).ok());
  for (uint64_t i = 0; i < 5; ++i) ASSERT_TRUE(Put(MakeManifest(i, false, "", other)).ok());
  const auto count = [&](const NamespaceId& ns, int limit) {
    std::vector<std::pair<NamespaceId, ReferenceId>> seen;
    NamespaceId after_ns;
    ReferenceId after_id;
    while (true) {
      const std::vector<ReferencePtr> page = catalog_->List(ns, after_ns, after_id, limit);
      EXPECT_LE(static_cast<int>(page.size()), limit);
      if (page.empty()) break;
      for (const ReferencePtr& reference : page) {
        seen.emplace_back(reference->manifest.ns, reference->manifest.id);
      }
      after_ns = seen.back().first;
      after_id = seen.back().second;
    }
    EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
    EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
    return seen.size();
  };
  for (const int limit : {1, 2, 3, 100}) {
    EXPECT_EQ(count(NamespaceId{}, limit), 12U);
    EXPECT_EQ(count(TestNamespace(), limit), 7U);
    EXPECT_EQ(count(other, limit), 5U);
  }
  EXPECT_EQ(count(MakeNamespaceId("none", "f"), 10), 0U);
}

// Of many references that want one alias at the same time, one gets it.
TEST_F(CatalogTest, ThreadsThatWantOneAlias) {
  constexpr int kThreads = 4;
  std::vector<std::thread> threads;
  std::vector<int> won(kThreads, 0);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &won] {
      for (int round = 0; round < 25; ++round) {
        const Manifest manifest = MakeManifest(static_cast<uint64_t>(t), true, "alias");
        const auto put = Put(manifest);
        if (!put.ok()) {
          EXPECT_TRUE(absl::IsAlreadyExists(put.status())) << put.status();
          continue;
        }
        ++won[static_cast<size_t>(t)];
        EXPECT_EQ(catalog_->FindByAlias(manifest.ns, "alias")->manifest.id, manifest.id);
        EXPECT_TRUE(catalog_->Delete(manifest.ns, manifest.id).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(won[0] + won[1] + won[2] + won[3], 0);
  EXPECT_EQ(catalog_->size(), 0);
  EXPECT_EQ(disk_.size(DiskTable::kCatalog), 0);
}

}  // namespace
}  // namespace semshare::testing
