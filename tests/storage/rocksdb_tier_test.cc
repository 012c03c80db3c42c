#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "storage/disk_tier.h"
#include "tests/storage/temp_dir.h"

namespace semshare::testing {
namespace {

constexpr DiskTable kTables[] = {DiskTable::kModels, DiskTable::kCatalog, DiskTable::kChunks};

RocksDbTierOptions Options(const std::string& path) {
  RocksDbTierOptions options;
  options.path = path;
  options.write_buffer_bytes = 8 << 20;
  return options;
}

std::unique_ptr<DiskTier> OpenTier(const std::string& path) {
  auto tier = NewRocksDbTier(Options(path));
  EXPECT_TRUE(tier.ok()) << tier.status();
  return tier.ok() ? *std::move(tier) : nullptr;
}

absl::Status Put(DiskTier* tier, DiskTable table, const std::string& key,
                 const std::string& value) {
  const DiskEntry entry{key, value};
  return tier->Put(table, absl::MakeConstSpan(&entry, 1));
}

absl::StatusOr<std::string> Get(DiskTier* tier, DiskTable table, const std::string& key) {
  std::string result;
  const absl::Status status = tier->Get(table, key, [&](std::string_view value) {
    result = std::string(value);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return result;
}

std::vector<std::string> Keys(DiskTier* tier, DiskTable table, const std::string& prefix) {
  std::vector<std::string> keys;
  EXPECT_TRUE(tier->Scan(table, prefix,
                         [&](std::string_view key, std::string_view value) {
                           keys.emplace_back(key);
                           EXPECT_EQ(value.empty(), table == DiskTable::kChunks);
                           return true;
                         })
                  .ok());
  return keys;
}

// Values below and above the size from which they are blobs.
std::string Value(int number) {
  std::string value(number % 2 == 0 ? 100 : 20000, '\0');
  for (size_t i = 0; i < value.size(); ++i) {
    value[i] = static_cast<char>(i * 31 + static_cast<size_t>(number) * 7);
  }
  return value;
}

TEST(RocksDbTierTest, ValuesSurviveARestart) {
  const TempDir dir;
  {
    const auto tier = OpenTier(dir.path());
    for (const DiskTable table : kTables) {
      for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(Put(tier.get(), table, absl::StrCat("key", i), Value(i)).ok());
      }
    }
    ASSERT_TRUE(tier->FlushChunks().ok());
    EXPECT_GT(tier->BytesUsed(), 5 * 20000);
  }
  const auto tier = OpenTier(dir.path());
  for (const DiskTable table : kTables) {
    for (int i = 0; i < 10; ++i) {
      const auto value = Get(tier.get(), table, absl::StrCat("key", i));
      ASSERT_TRUE(value.ok()) << value.status();
      EXPECT_EQ(*value, Value(i));
    }
    EXPECT_TRUE(absl::IsNotFound(Get(tier.get(), table, "key10").status()));
  }
}

TEST(RocksDbTierTest, TablesAreApartAndDeletesAreDurable) {
  const TempDir dir;
  {
    const auto tier = OpenTier(dir.path());
    for (const DiskTable table : kTables) {
      ASSERT_TRUE(Put(tier.get(), table, "a", "1").ok());
      ASSERT_TRUE(Put(tier.get(), table, "b", "2").ok());
    }
    ASSERT_TRUE(tier->Delete(DiskTable::kCatalog, {"a", "not there"}).ok());
    ASSERT_TRUE(tier->Delete(DiskTable::kCatalog, {}).ok());
    ASSERT_TRUE(tier->Put(DiskTable::kCatalog, {}).ok());
  }
  const auto tier = OpenTier(dir.path());
  EXPECT_EQ(Keys(tier.get(), DiskTable::kCatalog, ""), std::vector<std::string>({"b"}));
  EXPECT_EQ(Keys(tier.get(), DiskTable::kModels, ""), std::vector<std::string>({"a", "b"}));
}

TEST(RocksDbTierTest, TheErrorOfTheUserOfAValueIsPassedOn) {
  const TempDir dir;
  const auto tier = OpenTier(dir.path());
  ASSERT_TRUE(Put(tier.get(), DiskTable::kModels, "a", "1").ok());
  EXPECT_TRUE(absl::IsAborted(tier->Get(
      DiskTable::kModels, "a", [](std::string_view) { return absl::AbortedError("no"); })));
}

TEST(RocksDbTierTest, PrefixScans) {
  const TempDir dir;
  const auto tier = OpenTier(dir.path());
  const std::string top(2, '\xff');
  for (const DiskTable table : kTables) {
    for (const std::string& key : {std::string("b"), std::string("a"), std::string("ab"),
                                   std::string("ac"), std::string("a\0", 2), top}) {
      ASSERT_TRUE(Put(tier.get(), table, key, Value(1)).ok());
    }
    EXPECT_EQ(Keys(tier.get(), table, ""),
              std::vector<std::string>({"a", std::string("a\0", 2), "ab", "ac", "b", top}));
    EXPECT_EQ(Keys(tier.get(), table, "a").size(), 4U);
    EXPECT_EQ(Keys(tier.get(), table, "ab"), std::vector<std::string>({"ab"}));
    EXPECT_EQ(Keys(tier.get(), table, top), std::vector<std::string>({top}));
    EXPECT_TRUE(Keys(tier.get(), table, "c").empty());
    int visits = 0;
    ASSERT_TRUE(
        tier->Scan(table, "", [&](std::string_view, std::string_view) { return ++visits < 2; })
            .ok());
    EXPECT_EQ(visits, 2);
  }
}

// Keys are listed in batches; several versions and deletions of keys lie between them.
TEST(RocksDbTierTest, ScanOfManyChunks) {
  const TempDir dir;
  const auto tier = OpenTier(dir.path());
  constexpr int kCount = 9000;
  const std::string small = "x";
  for (int version = 0; version < 2; ++version) {
    std::vector<DiskEntry> entries;
    for (int i = 0; i < kCount; ++i) {
      entries.push_back({absl::StrCat("key", 100000 + i), small});
    }
    ASSERT_TRUE(tier->Put(DiskTable::kChunks, entries).ok());
    if (version == 0) {
      ASSERT_TRUE(tier->FlushChunks().ok());
    }
  }
  std::vector<std::string> deleted;
  for (int i = 0; i < kCount; i += 3) deleted.push_back(absl::StrCat("key", 100000 + i));
  ASSERT_TRUE(tier->Delete(DiskTable::kChunks, deleted).ok());
  const std::vector<std::string> keys = Keys(tier.get(), DiskTable::kChunks, "key");
  std::vector<std::string> expected;
  for (int i = 0; i < kCount; ++i) {
    if (i % 3 != 0) expected.push_back(absl::StrCat("key", 100000 + i));
  }
  EXPECT_EQ(keys, expected);
}

TEST(RocksDbTierTest, ConcurrentFlushes) {
  const TempDir dir;
  const auto tier = OpenTier(dir.path());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&tier, t] {
      for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(Put(tier.get(), DiskTable::kChunks, absl::StrCat(t, "-", i), Value(i)).ok());
        EXPECT_TRUE(tier->FlushChunks().ok());
        EXPECT_TRUE(Put(tier.get(), DiskTable::kCatalog, absl::StrCat(t, "-", i), "m").ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Keys(tier.get(), DiskTable::kChunks, "").size(), 80U);
  EXPECT_EQ(Keys(tier.get(), DiskTable::kCatalog, "").size(), 80U);
  // Flushing chunks starts a log file each time; they must not pile up.
  int logs = 0;
  for (const auto& file : std::filesystem::directory_iterator(dir.path())) {
    if (file.path().extension() == ".log") ++logs;
  }
  EXPECT_LE(logs, 70);
}

TEST(RocksDbTierTest, ASecondOpenerIsRefused) {
  const TempDir dir;
  const auto tier = OpenTier(dir.path());
  EXPECT_TRUE(absl::IsUnavailable(NewRocksDbTier(Options(dir.path())).status()));
  EXPECT_TRUE(Put(tier.get(), DiskTable::kCatalog, "a", "1").ok());
}

TEST(RocksDbTierTest, OptionsCheckTheirLimits) {
  RocksDbTierOptions options;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
  options.path = "x";
  EXPECT_TRUE(options.Validate().ok());
  options.write_buffer_bytes = 1 << 20;
  options.block_cache_bytes = 0;
  options.background_jobs = 64;
  EXPECT_TRUE(options.Validate().ok());
  options.background_jobs = 65;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
  options.background_jobs = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
  options.background_jobs = 1;
  options.block_cache_bytes = -1;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
  options.block_cache_bytes = 0;
  options.write_buffer_bytes = (1 << 20) - 1;
  EXPECT_TRUE(absl::IsInvalidArgument(options.Validate()));
}

TEST(RocksDbTierTest, APlaceThatCannotBeOpenedIsUnavailable) {
  const TempDir dir;
  const std::string file = dir.path() + "/file";
  std::ofstream(file) << "x";
  EXPECT_TRUE(absl::IsUnavailable(NewRocksDbTier(Options(file)).status()));
}

// A disk that stops working: errors are kept and refuse further writes; what was durable is there
// after a restart.
TEST(RocksDbTierTest, AFailedFlushIsUnavailableAndStays) {
  const TempDir dir;
  const std::string path = dir.path() + "/db";
  const std::string away = dir.path() + "/away";
  {
    const auto tier = OpenTier(path);
    ASSERT_TRUE(Put(tier.get(), DiskTable::kChunks, "durable", Value(1)).ok());
    ASSERT_TRUE(tier->FlushChunks().ok());
    ASSERT_TRUE(Put(tier.get(), DiskTable::kCatalog, "durable", "m").ok());
    ASSERT_TRUE(Put(tier.get(), DiskTable::kChunks, "lost", Value(3)).ok());
    std::filesystem::rename(path, away);
    const absl::Status flushed = tier->FlushChunks();
    EXPECT_TRUE(absl::IsUnavailable(flushed)) << flushed;
    const absl::Status put = Put(tier.get(), DiskTable::kCatalog, "lost", "m");
    EXPECT_TRUE(absl::IsUnavailable(put)) << put;
  }
  std::filesystem::remove_all(path);
  std::filesystem::rename(away, path);
  const auto tier = OpenTier(path);
  ASSERT_NE(tier, nullptr);
  EXPECT_EQ(*Get(tier.get(), DiskTable::kChunks, "durable"), Value(1));
  EXPECT_EQ(*Get(tier.get(), DiskTable::kCatalog, "durable"), "m");
  EXPECT_TRUE(absl::IsNotFound(Get(tier.get(), DiskTable::kCatalog, "lost").status()));
}

// ---- Damaged files --------------------------------------------------------------------------

void FillAndClose(const std::string& path) {
  const auto tier = OpenTier(path);
  for (int i = 0; i < 8; ++i) {
    for (const DiskTable table : kTables) {
      ASSERT_TRUE(Put(tier.get(), table, absl::StrCat("key", i), Value(i)).ok());
    }
    if (i == 3) {
      ASSERT_TRUE(tier->FlushChunks().ok());
    }
  }
}

// What is still there of the values that FillAndClose put. Every failure is one of the codes that
// callers are prepared for, and no value is wrong.
int CountIntact(DiskTier* tier) {
  int intact = 0;
  for (const DiskTable table : kTables) {
    for (int i = 0; i < 8; ++i) {
      const auto value = Get(tier, table, absl::StrCat("key", i));
      if (value.ok()) {
        EXPECT_EQ(*value, Value(i));
        ++intact;
      } else {
        EXPECT_TRUE(absl::IsDataLoss(value.status()) || absl::IsNotFound(value.status()) ||
                    absl::IsUnavailable(value.status()))
            << value.status();
      }
    }
  }
  return intact;
}

void FlipByte(const std::filesystem::path& path, uintmax_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const auto byte = static_cast<char>(file.get() ^ 0x20);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
}

TEST(RocksDbTierTest, DamagedFilesAreErrorsAndNeverWrongValues) {
  const TempDir dir;
  const std::string original = dir.path() + "/original";
  FillAndClose(original);
  int damaged = 0;
  for (const auto& file : std::filesystem::directory_iterator(original)) {
    const uintmax_t size = file.file_size();
    const std::string name = file.path().filename().string();
    if (size == 0 || name.starts_with("LOG") || name.starts_with("OPTIONS")) continue;
    for (int part = 0; part < 5; ++part) {
      const std::string copy = dir.path() + "/copy";
      std::filesystem::copy(original, copy);
      FlipByte(copy + "/" + name, (size - 1) * static_cast<uintmax_t>(part) / 4);
      const auto tier = NewRocksDbTier(Options(copy));
      if (tier.ok()) {
        if (CountIntact(tier->get()) < 24) ++damaged;
      } else {
        EXPECT_TRUE(absl::IsUnavailable(tier.status())) << tier.status();
        ++damaged;
      }
      std::filesystem::remove_all(copy);
    }
  }
  EXPECT_GT(damaged, 5);
}

std::set<std::filesystem::path> BlobFiles(const TempDir& dir) {
  std::set<std::filesystem::path> files;
  for (const auto& file : std::filesystem::recursive_directory_iterator(dir.path())) {
    if (file.path().extension() == ".blob") files.insert(file.path());
  }
  return files;
}

// Each compaction meets every key: with RocksDB's own collection it would move old blobs, again and
// again.
TEST(RocksDbTierTest, CompactionsDoNotMoveLiveBlobs) {
  const TempDir dir;
  const auto tier = OpenTier(dir.path());
  std::set<std::filesystem::path> before;
  for (int flush = 0; flush < 24; ++flush) {
    for (int i = 0; i < 4; ++i) {
      const std::string key = absl::StrCat(i, "-", flush);
      ASSERT_TRUE(Put(tier.get(), DiskTable::kChunks, key, Value(2 * flush + 1)).ok());
    }
    ASSERT_TRUE(tier->FlushChunks().ok());
    if (flush == 3) before = BlobFiles(dir);
  }
  EXPECT_EQ(before.size(), 4);
  const std::set<std::filesystem::path> after = BlobFiles(dir);
  EXPECT_TRUE(std::includes(after.begin(), after.end(), before.begin(), before.end()));
}

// Whatever the table: manifests of long prompts and models' tables are blobs as well.
void ExpectRoomComesBack(DiskTable table) {
  // The tables with a log are flushed with every 64th flush of chunks.
  const int calls_per_flush = table == DiskTable::kChunks ? 1 : 64;
  constexpr int kFlushes = 8;
  constexpr int kValues = 10;
  constexpr int kDeleted = 7;  // of each file, so that none is nothing but garbage
  const TempDir dir;
  RocksDbTierOptions options = Options(dir.path());
  options.least_garbage_bytes = 1;
  auto tier = *NewRocksDbTier(options);
  const auto key = [](int flush, int i) { return absl::StrCat(i, "-", flush); };
  std::vector<std::string> deleted;
  for (int flush = 0; flush < kFlushes; ++flush) {
    for (int i = 0; i < kValues; ++i) {
      const std::string value = Value(2 * (flush * kValues + i) + 1);
      ASSERT_TRUE(Put(tier.get(), table, key(flush, i), value).ok());
      if (i < kDeleted) deleted.push_back(key(flush, i));
    }
    for (int i = 0; i < calls_per_flush; ++i) ASSERT_TRUE(tier->FlushChunks().ok());
  }
  ASSERT_TRUE(tier->Delete(table, deleted).ok());
  // It is known as garbage after some flushes, and then moved by another thread.
  int more = 0;
  while (tier->BytesUsed() > kFlushes * kDeleted * 20000) {
    ASSERT_TRUE(Put(tier.get(), table, "more", absl::StrCat(++more)).ok());
    for (int i = 0; i < calls_per_flush; ++i) ASSERT_TRUE(tier->FlushChunks().ok());
  }
  tier = nullptr;
  tier = OpenTier(dir.path());
  for (int flush = 0; flush < kFlushes; ++flush) {
    for (int i = 0; i < kValues; ++i) {
      const auto value = Get(tier.get(), table, key(flush, i));
      EXPECT_EQ(absl::IsNotFound(value.status()), i < kDeleted);
      if (i < kDeleted) continue;
      ASSERT_TRUE(value.ok()) << value.status();
      EXPECT_EQ(*value, Value(2 * (flush * kValues + i) + 1));
    }
  }
}

TEST(RocksDbTierTest, RoomOfDeletedChunksComesBack) { ExpectRoomComesBack(DiskTable::kChunks); }

TEST(RocksDbTierTest, RoomOfDeletedManifestsComesBack) { ExpectRoomComesBack(DiskTable::kCatalog); }

TEST(RocksDbTierTest, ADamagedBlobIsDataLoss) {
  const TempDir dir;
  FillAndClose(dir.path());
  for (const auto& file : std::filesystem::directory_iterator(dir.path())) {
    if (file.path().extension() != ".blob") continue;
    for (uintmax_t at = 5000; at < file.file_size(); at += 5000) FlipByte(file.path(), at);
  }
  const auto tier = OpenTier(dir.path());
  ASSERT_NE(tier, nullptr);
  EXPECT_TRUE(absl::IsDataLoss(Get(tier.get(), DiskTable::kChunks, "key1").status()));
  EXPECT_TRUE(Get(tier.get(), DiskTable::kChunks, "key2").ok());
  // Blobs are not read by a listing.
  EXPECT_EQ(Keys(tier.get(), DiskTable::kChunks, "").size(), 8U);
}

}  // namespace
}  // namespace semshare::testing
