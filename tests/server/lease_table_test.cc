#include "server/lease_table.h"

#include <set>

#include "gtest/gtest.h"

namespace semshare {
namespace {

constexpr int kLimit = 3;
constexpr int64_t kMaxMs = 10000;
constexpr int64_t kTimeoutMs = 100;
constexpr int64_t kMemoryMs = 1000;
constexpr char kTenant[] = "a";

std::shared_ptr<MatchLease> MakeLease(const std::string& tenant = kTenant) {
  auto lease = std::make_shared<MatchLease>();
  lease->id = RandomId();
  lease->tenant = tenant;
  return lease;
}

class LeaseTableTest : public ::testing::Test {
 protected:
  // Adds a lease at time 0.
  std::string Add() {
    const auto lease = MakeLease();
    EXPECT_TRUE(table_.Add(lease, 0).ok());
    return lease->id;
  }
  LeaseTable table_{kLimit, kTimeoutMs, kMaxMs, kMemoryMs};
};

TEST(RandomIdTest, IdsAreLongAndDiffer) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(RandomId());
  EXPECT_EQ(ids.size(), 1000U);
  EXPECT_EQ(ids.begin()->size(), 16U);
}

TEST_F(LeaseTableTest, LimitAndOneMore) {
  std::vector<std::string> ids;
  for (int i = 0; i < kLimit; ++i) ids.push_back(Add());
  EXPECT_EQ(table_.active(), kLimit);
  EXPECT_TRUE(absl::IsResourceExhausted(table_.Add(MakeLease(), 0)));
  // Neither a lease that was given back nor one that expired counts.
  EXPECT_TRUE(*table_.Release(kTenant, ids[0], 1));
  EXPECT_TRUE(table_.Add(MakeLease(), 1).ok());
  EXPECT_EQ(table_.Expire(kTimeoutMs + 1), kLimit - 1);
  EXPECT_EQ(table_.active(), 1);
  EXPECT_TRUE(table_.Add(MakeLease(), kTimeoutMs + 1).ok());
}

TEST_F(LeaseTableTest, OpeningDoesNotKeepALeaseForEver) {
  const std::string id = Add();
  int64_t now = 0;
  while (now + kTimeoutMs <= kMaxMs) {
    now += kTimeoutMs;
    ASSERT_TRUE(table_.Open(kTenant, id, now).ok()) << now;
  }
  EXPECT_TRUE(table_.Open(kTenant, id, kMaxMs).ok());
  EXPECT_TRUE(absl::IsAborted(table_.Open(kTenant, id, kMaxMs + 1).status()));
}

TEST_F(LeaseTableTest, OpeningStartsTheTimeoutAnew) {
  const std::string id = Add();
  EXPECT_TRUE(table_.Open(kTenant, id, kTimeoutMs).ok());
  EXPECT_TRUE(table_.Open(kTenant, id, 2 * kTimeoutMs).ok());
  EXPECT_EQ(table_.Expire(3 * kTimeoutMs), 0);
  EXPECT_TRUE(absl::IsAborted(table_.Open(kTenant, id, 3 * kTimeoutMs + 1).status()));
  EXPECT_EQ(table_.active(), 0);
}

TEST_F(LeaseTableTest, ExpiredIsAbortedUntilForgotten) {
  const std::string id = Add();
  EXPECT_EQ(table_.Expire(kTimeoutMs), 0);
  EXPECT_EQ(table_.Expire(kTimeoutMs + 1), 1);
  EXPECT_TRUE(absl::IsAborted(table_.Open(kTenant, id, kTimeoutMs + 1).status()));
  EXPECT_TRUE(absl::IsAborted(table_.Release(kTenant, id, kTimeoutMs + 1).status()));
  const int64_t forgotten = kTimeoutMs + 1 + kMemoryMs + 1;
  EXPECT_EQ(table_.Expire(forgotten - 1), 0);
  EXPECT_TRUE(absl::IsAborted(table_.Open(kTenant, id, forgotten - 1).status()));
  EXPECT_EQ(table_.Expire(forgotten), 0);
  EXPECT_TRUE(absl::IsNotFound(table_.Open(kTenant, id, forgotten).status()));
}

TEST_F(LeaseTableTest, ReleasedIsNotFoundAndReleasingIsIdempotent) {
  const std::string id = Add();
  EXPECT_TRUE(*table_.Release(kTenant, id, 1));
  EXPECT_FALSE(*table_.Release(kTenant, id, 2));
  EXPECT_TRUE(absl::IsNotFound(table_.Open(kTenant, id, 2).status()));
  table_.Expire(kMemoryMs + 2);
  EXPECT_TRUE(absl::IsNotFound(table_.Release(kTenant, id, kMemoryMs + 2).status()));
}

TEST_F(LeaseTableTest, OfAnotherTenantIsNotFound) {
  const std::string id = Add();
  EXPECT_TRUE(absl::IsNotFound(table_.Open("b", id, 1).status()));
  EXPECT_TRUE(absl::IsNotFound(table_.Release("b", id, 1).status()));
  EXPECT_TRUE(table_.Open(kTenant, id, 1).ok());
  EXPECT_TRUE(absl::IsNotFound(table_.Open(kTenant, "never issued", 1).status()));
}

TEST_F(LeaseTableTest, WhoeverOpenedALeaseKeepsIt) {
  const auto lease = MakeLease();
  std::weak_ptr<const MatchLease> watched = lease;
  const std::string id = lease->id;
  {
    LeaseTable table(1, kTimeoutMs, kMaxMs, kMemoryMs);
    EXPECT_TRUE(table.Add(lease, 0).ok());
    const auto open = table.Open(kTenant, id, 1);
    ASSERT_TRUE(open.ok());
    EXPECT_EQ(table.Expire(kTimeoutMs + 2), 1);
    EXPECT_EQ((*open)->id, id);
    EXPECT_EQ(lease.use_count(), 2);  // the table has let go
  }
  EXPECT_FALSE(watched.expired());
}

}  // namespace
}  // namespace semshare
