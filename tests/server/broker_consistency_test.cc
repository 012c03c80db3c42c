// What several callers and a failing disk may do to a broker at once: catalog, index and disk agree
// afterwards, and nothing that was committed is lost.
#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "server/broker.h"
#include "tests/server/broker_harness.h"

namespace semshare::testing {
namespace {

using Ids = std::vector<uint32_t>;

class BrokerConsistencyTest : public ::testing::Test {
 protected:
  BrokerConsistencyTest() : harness_(BackendCases()[0]) {
    EXPECT_TRUE(harness_.RegisterModel().ok());
  }
  Broker& broker() { return *harness_.broker; }
  void ExpectCommittedIntact() {
    const absl::Status status = harness_.CheckCommitted();
    EXPECT_TRUE(status.ok()) << status;
  }
  ReferenceId IdOf(const Ids& ids) const {
    return MakeReferenceId(MakeNamespaceId(kTenant, harness_.engine.fingerprint()), ids, {});
  }
  // Two prompts in the order in which the catalog lists them.
  std::pair<Ids, Ids> TwoInOrder() const {
    Ids first = RandomIds(200, 1);
    Ids second = RandomIds(200, 2);
    if (IdOf(second) < IdOf(first)) std::swap(first, second);
    return {first, second};
  }
  // Runs `act` once, while the next deletion in `table` is on its way to the disk.
  void DuringNextDelete(DiskTable table, std::function<void()> act) {
    auto done = std::make_shared<std::atomic<bool>>(false);
    harness_.disk.SetHook(
        [table, act = std::move(act), done](DiskOperation operation, DiskTable at) {
          if (operation == DiskOperation::kDelete && at == table && !done->exchange(true)) act();
          return absl::OkStatus();
        });
  }

  BrokerHarness harness_;
  const Ids document_ = RandomIds(300, 9);
};

TEST_F(BrokerConsistencyTest, ModelThatWasUnreadableAtStartFindsItsReferencesAgain) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const std::string key = std::string(kTenant) + "/" +
                          absl::BytesToHexString(harness_.engine.fingerprint()) + "/table/00000000";
  harness_.disk.Corrupt(DiskTable::kModels, key, 5, 0x10);
  harness_.Restart();
  ASSERT_EQ(harness_.warnings.size(), 1U);
  ASSERT_TRUE(harness_.RegisterModel().ok());
  ExpectCommittedIntact();
}

TEST_F(BrokerConsistencyTest, ReferenceThatTheDiskKeepsIsStillFound) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  harness_.disk.FailCall(1, absl::UnavailableError("down"));
  EXPECT_TRUE(absl::IsUnavailable(broker().Delete(kTenant, {"", IdOf(document_), "", ""})));
  ExpectCommittedIntact();
  EXPECT_TRUE(broker().Delete(kTenant, {"", IdOf(document_), "", ""}).ok());
  EXPECT_FALSE(harness_.Match(harness_.Find(document_)).ok());
}

TEST_F(BrokerConsistencyTest, ExpirySparesWhatWasPutAgain) {
  const auto [first, second] = TwoInOrder();
  PutRequest put = harness_.Put(first);
  put.ttl_ms = 1000;
  ASSERT_TRUE(harness_.Store(put).ok());
  put.token_ids = second;
  ASSERT_TRUE(harness_.Store(put).ok());
  harness_.now_ms += 2000;
  DuringNextDelete(DiskTable::kCatalog, [&] { EXPECT_TRUE(broker().BeginPut(kTenant, put).ok()); });
  ASSERT_TRUE(broker().Maintain().ok());
  harness_.disk.SetHook(nullptr);
  EXPECT_EQ(broker().metrics().references_expired.load(), 1U);
  harness_.committed = {second};
  ExpectCommittedIntact();
}

TEST_F(BrokerConsistencyTest, TrimSparesWhatWasPutAgain) {
  const auto [first, second] = TwoInOrder();
  ASSERT_TRUE(harness_.Store(harness_.Put(first)).ok());
  const PutRequest put = harness_.Put(second);
  ASSERT_TRUE(harness_.Store(put).ok());
  harness_.now_ms += 2000;
  DuringNextDelete(DiskTable::kCatalog, [&] { EXPECT_TRUE(broker().BeginPut(kTenant, put).ok()); });
  EXPECT_EQ(*broker().TrimByTime(kTenant, harness_.now_ms), 1);
  harness_.disk.SetHook(nullptr);
  harness_.committed = {second};
  ExpectCommittedIntact();
}

// The first deletion in the table is of the spec, the second of the parts: before and after the
// model is gone.
TEST_F(BrokerConsistencyTest, CommitDuringDeleteTenantLeavesNothing) {
  for (const int nth : {1, 2}) {
    auto upload = harness_.Fill(harness_.Put(document_));
    ASSERT_TRUE(upload.ok()) << upload.status();
    ASSERT_TRUE(harness_.Store(harness_.Put(RandomIds(200, 3))).ok());
    absl::Status committed;
    int deletions = 0;
    harness_.disk.SetHook([&](DiskOperation operation, DiskTable table) {
      if (operation == DiskOperation::kDelete && table == DiskTable::kModels &&
          ++deletions == nth) {
        committed = broker().Commit(*std::move(upload)).status();
      }
      return absl::OkStatus();
    });
    EXPECT_TRUE(broker().DeleteTenant(kTenant).ok());
    harness_.disk.SetHook(nullptr);
    EXPECT_EQ(committed.code(), nth == 1 ? absl::StatusCode::kOk : absl::StatusCode::kNotFound);
    EXPECT_EQ(broker().Stats().references, 0);
    EXPECT_EQ(harness_.disk.size(DiskTable::kCatalog), 0);
    ASSERT_TRUE(harness_.RegisterModel().ok());
    EXPECT_FALSE(harness_.Match(harness_.Find(document_)).ok());
  }
}

TEST_F(BrokerConsistencyTest, TenantThatTheDiskKeepsCanBeDeletedAgain) {
  harness_.disk.FailCall(1, absl::UnavailableError("down"));
  EXPECT_TRUE(absl::IsUnavailable(broker().DeleteTenant(kTenant).status()));
  EXPECT_TRUE(*broker().HasModel(kTenant, harness_.engine.fingerprint()));
  EXPECT_EQ(broker().DeleteTenant(kTenant)->models, 1);
  harness_.Restart();
  EXPECT_FALSE(*broker().HasModel(kTenant, harness_.engine.fingerprint()));
}

TEST_F(BrokerConsistencyTest, UploadsStayWithinTheirLimit) {
  const int limit = broker().options().limits.max_uploads;
  std::vector<std::string> uploads;
  for (int i = 0; i < limit; ++i) {
    const auto ticket = broker().BeginPut(kTenant, harness_.Put(RandomIds(100, 20 + i)));
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    uploads.push_back(ticket->upload_id);
  }
  const PutRequest one_more = harness_.Put(document_);
  EXPECT_TRUE(absl::IsResourceExhausted(broker().BeginPut(kTenant, one_more).status()));
  {
    // Taken by a stream it counts still, until the stream drops it.
    const auto taken = broker().TakeUpload(kTenant, uploads[0]);
    ASSERT_TRUE(taken.ok());
    EXPECT_TRUE(absl::IsResourceExhausted(broker().BeginPut(kTenant, one_more).status()));
  }
  EXPECT_TRUE(broker().BeginPut(kTenant, one_more).ok());
}

TEST_F(BrokerConsistencyTest, UploadsThatBeginAtOnceStayWithinTheirLimit) {
  const int limit = broker().options().limits.max_uploads;
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> ready{0};
    std::atomic<int> begun{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] {
        const PutRequest put = harness_.Put(RandomIds(1000, 100 + i));
        ++ready;
        while (ready.load() < 8) std::this_thread::yield();
        begun += broker().BeginPut(kTenant, put).ok() ? 1 : 0;
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(begun.load(), limit) << round;
    harness_.now_ms += broker().options().upload_timeout_ms + 1;
    ASSERT_TRUE(broker().Maintain().ok());
  }
}

TEST_F(BrokerConsistencyTest, PutAgainKeepsWhatItDoesNotSay) {
  PutRequest put = harness_.Put(document_);
  put.priority = 7;
  put.alias = "manual";
  ASSERT_TRUE(harness_.Store(put).ok());
  ASSERT_TRUE(broker().BeginPut(kTenant, harness_.Put(document_)).ok());
  auto detail = broker().Describe(kTenant, {"", {}, "manual", ""});
  ASSERT_TRUE(detail.ok()) << detail.status();
  EXPECT_EQ(detail->reference->manifest.priority, 7);
  put.priority = 3;
  ASSERT_TRUE(broker().BeginPut(kTenant, put).ok());
  detail = broker().Describe(kTenant, {"", {}, "manual", ""});
  ASSERT_TRUE(detail.ok()) << detail.status();
  EXPECT_EQ(detail->reference->manifest.priority, 3);
}

// Whoever puts or deletes last, the index says what the catalog says.
TEST_F(BrokerConsistencyTest, PutsAndDeletesAtOnceLeaveCatalogAndIndexEqual) {
  const Ids longer = RandomIds(400, 5);
  ASSERT_TRUE(harness_.Store(harness_.Put(longer)).ok());
  // A prefix of whole chunks: never anything to send.
  const PutRequest put = harness_.Put(Ids(longer.begin(), longer.begin() + 256));
  const ModelPtr model = broker().ListModels(kTenant)[0];
  for (int round = 0; round < 100; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        if (i % 2 == 0) {
          EXPECT_TRUE(broker().BeginPut(kTenant, put).ok());
        } else {
          const absl::Status status = broker().Delete(kTenant, {"", IdOf(put.token_ids), "", ""});
          EXPECT_TRUE(status.ok() || absl::IsNotFound(status)) << status;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(model->index->stats().references, broker().Stats().references) << round;
  }
  ExpectCommittedIntact();
}

// Every operation of a commit on disk fails once, one after the other.
TEST_F(BrokerConsistencyTest, DiskThatFailsDuringACommitLosesNothing) {
  ASSERT_TRUE(harness_.Store(harness_.Put(RandomIds(200, 3))).ok());
  int failed = 0;
  for (int nth = 1; nth <= 6; ++nth) {
    const PutRequest put = harness_.Put(RandomIds(200, 30 + nth));
    auto upload = harness_.Fill(put);
    ASSERT_TRUE(upload.ok()) << upload.status();
    harness_.disk.FailCall(nth, absl::UnavailableError("down"));
    const auto result = broker().Commit(*std::move(upload));
    harness_.disk.FailCall(0, absl::OkStatus());
    ExpectCommittedIntact();
    if (result.ok()) {
      harness_.committed.push_back(put.token_ids);
    } else {
      ++failed;
      EXPECT_TRUE(absl::IsUnavailable(result.status())) << result.status();
      EXPECT_FALSE(harness_.Match(harness_.Find(put.token_ids)).ok());
    }
    harness_.disk.Crash();
    harness_.Restart();
    ExpectCommittedIntact();
    if (!result.ok()) {
      EXPECT_TRUE(harness_.Store(put).ok());
    }
  }
  EXPECT_GE(failed, 2);  // chunks, flush, manifest
  EXPECT_LT(failed, 6);
  ExpectCommittedIntact();
}

}  // namespace
}  // namespace semshare::testing
