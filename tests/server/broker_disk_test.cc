// A broker over a real disk, some bytes of which rot: a miss, never wrong numbers, and nothing else
// is lost.
#include <filesystem>
#include <fstream>
#include <set>

#include "gtest/gtest.h"
#include "server/broker.h"
#include "tests/server/broker_harness.h"
#include "tests/storage/temp_dir.h"

namespace semshare::testing {
namespace {

using Ids = std::vector<uint32_t>;

class BrokerDiskTest : public ::testing::Test {
 protected:
  BrokerDiskTest() : harness_(BackendCases()[0]) { Reopen(); }
  ~BrokerDiskTest() override { harness_.broker = nullptr; }

  void Reopen() {
    harness_.broker = nullptr;
    tier_ = nullptr;
    RocksDbTierOptions options;
    options.path = dir_.path();
    tier_ = *NewRocksDbTier(options);
    harness_.tier = tier_.get();
    harness_.Restart();
  }
  std::set<std::filesystem::path> Blobs() const {
    std::set<std::filesystem::path> blobs;
    for (const auto& file : std::filesystem::directory_iterator(dir_.path())) {
      if (file.path().extension() == ".blob") blobs.insert(file.path());
    }
    return blobs;
  }
  static void FlipMiddleByte(const std::filesystem::path& path) {
    const auto at = static_cast<std::streamoff>(std::filesystem::file_size(path) / 2);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const auto byte = static_cast<char>(file.get() ^ 0x20);
    file.seekp(at);
    file.put(byte);
  }
  void ExpectCommittedIntact() {
    const absl::Status status = harness_.CheckCommitted();
    EXPECT_TRUE(status.ok()) << status;
  }

  const TempDir dir_;
  BrokerHarness harness_;
  std::unique_ptr<DiskTier> tier_;
};

TEST_F(BrokerDiskTest, RottenRecordIsAMissAndAPutHealsIt) {
  ASSERT_TRUE(harness_.RegisterModel().ok());
  ASSERT_TRUE(harness_.Store(harness_.Put(RandomIds(400, 1))).ok());
  const std::set<std::filesystem::path> before = Blobs();
  const Ids document = RandomIds(400, 2);
  const auto put = harness_.Store(harness_.Put(document));
  ASSERT_TRUE(put.ok()) << put.status();
  // The chunks' records; closing writes other tables.
  const std::set<std::filesystem::path> after = Blobs();
  harness_.broker = nullptr;
  tier_ = nullptr;
  int flipped = 0;
  for (const std::filesystem::path& blob : after) {
    if (before.contains(blob)) continue;
    FlipMiddleByte(blob);
    ++flipped;
  }
  ASSERT_GE(flipped, 1);

  Reopen();
  const auto result = harness_.broker->FindMatch(kTenant, harness_.Find(document));
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_TRUE(std::holds_alternative<NoMatch>(*result));
  EXPECT_EQ(std::get<NoMatch>(*result).reason, NoMatchReason::kChunksUnavailable);
  EXPECT_TRUE(
      absl::IsDataLoss(harness_.broker->Describe(kTenant, {"", put->reference, "", ""}).status()));
  harness_.committed.pop_back();
  ExpectCommittedIntact();

  ASSERT_TRUE(harness_.Store(harness_.Put(document)).ok());
  ExpectCommittedIntact();
  Reopen();
  ExpectCommittedIntact();
}

}  // namespace
}  // namespace semshare::testing
