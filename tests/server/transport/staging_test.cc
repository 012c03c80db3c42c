#include "server/transport/staging.h"

#include <set>

#include "gtest/gtest.h"
#include "tests/storage/backends.h"

namespace semshare::testing {
namespace {

constexpr int kStreams = 2;
constexpr int64_t kBytes = 4096;

class StagingTest : public ::testing::Test {
 protected:
  StagingTest()
      : backend_(*BackendCases()[0].make()),
        pool_(*StagingPool::Create(backend_.get(), kStreams, kBytes)) {}

  const std::unique_ptr<Backend> backend_;
  const std::unique_ptr<StagingPool> pool_;
};

TEST_F(StagingTest, QuotasUpToTheLimit) {
  std::vector<std::shared_ptr<StreamStaging>> quotas;
  for (int i = 0; i < kStreams; ++i) {
    auto quota = pool_->Borrow();
    ASSERT_TRUE(quota.ok()) << quota.status();
    quotas.push_back(*std::move(quota));
  }
  EXPECT_TRUE(absl::IsResourceExhausted(pool_->Borrow().status()));
  quotas.pop_back();
  EXPECT_TRUE(pool_->Borrow().ok());
}

TEST_F(StagingTest, BuffersAreDisjoint) {
  std::vector<std::shared_ptr<StreamStaging>> quotas;
  std::set<uint64_t> addresses;
  for (int i = 0; i < kStreams; ++i) {
    quotas.push_back(*pool_->Borrow());
    for (int taken = 0; taken < StagingPool::kBuffersPerStream; ++taken) {
      const int buffer = quotas.back()->TryTake();
      ASSERT_GE(buffer, 0);
      EXPECT_EQ(quotas.back()->span(buffer).bytes, kBytes);
      addresses.insert(quotas.back()->span(buffer).address);
    }
    EXPECT_LT(quotas.back()->TryTake(), 0);
  }
  ASSERT_EQ(addresses.size(), static_cast<size_t>(kStreams * StagingPool::kBuffersPerStream));
  uint64_t last = 0;
  for (const uint64_t address : addresses) {
    EXPECT_TRUE(last == 0 || address - last >= static_cast<uint64_t>(kBytes));
    last = address;
  }
}

TEST_F(StagingTest, AReturnedBufferIsThereAgainAndTold) {
  const auto quota = *pool_->Borrow();
  int told = 0;
  quota->SetListener([&told] { ++told; });
  for (int i = 0; i < StagingPool::kBuffersPerStream - 1; ++i) ASSERT_GE(quota->TryTake(), 0);
  const int buffer = quota->TryTake();
  EXPECT_LT(quota->TryTake(), 0);
  quota->Return(buffer);
  EXPECT_EQ(told, 1);
  EXPECT_EQ(quota->TryTake(), buffer);
  quota->SetListener(nullptr);
  quota->Return(buffer);
  EXPECT_EQ(told, 1);
}

TEST_F(StagingTest, SizesMustBePositive) {
  EXPECT_TRUE(absl::IsInvalidArgument(StagingPool::Create(backend_.get(), 0, 1).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(StagingPool::Create(backend_.get(), 1, 0).status()));
}

}  // namespace
}  // namespace semshare::testing
