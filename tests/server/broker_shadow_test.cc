// Shadow checks in the broker: what is wrong is refused, and a kind that misses its target is a
// miss until its time is over or its checks are forgotten.
#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/broker.h"
#include "tests/server/broker_harness.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;

class BrokerShadowTest : public ::testing::Test {
 protected:
  BrokerShadowTest() : harness_(BackendCases()[0]) {
    EXPECT_TRUE(harness_.RegisterModel().ok());
    EXPECT_TRUE(harness_.Store(harness_.Put(document_)).ok());
    shifted_ = RandomIds(90, 2);
    shifted_.insert(shifted_.end(), document_.begin(), document_.end());
  }
  Broker& broker() { return *harness_.broker; }

  ShadowCheck Check(ResultKind kind, double kl) const {
    ShadowCheck check;
    check.model = harness_.engine.fingerprint();
    check.kind = kind;
    check.kl_first = kl;
    return check;
  }
  absl::Status Report(const ShadowCheck& check, std::string_view tenant = kTenant) {
    return broker().ReportShadowCheck(tenant, check).status();
  }
  // Reports as many bad checks as it takes to switch the kind off.
  void SwitchOff(ResultKind kind) {
    const int checks = broker().options().shadow.minimum_checks;
    for (int i = 0; i < checks; ++i) {
      const auto verdict = broker().ReportShadowCheck(kTenant, Check(kind, 1));
      ASSERT_TRUE(verdict.ok()) << verdict.status();
      EXPECT_EQ(verdict->newly_disabled, i + 1 == checks);
    }
  }
  // The kind of the answer; kMiss must be for the reason of this test.
  ResultKind Find(const Ids& ids) {
    const auto found = broker().FindMatch(kTenant, harness_.Find(ids));
    EXPECT_TRUE(found.ok()) << found.status();
    if (!found.ok()) return ResultKind::kFallback;
    if (const auto* match = std::get_if<MatchResult>(&*found)) {
      EXPECT_TRUE(broker().ReleaseMatch(kTenant, match->lease->id, {}).ok());
      return match->kind;
    }
    EXPECT_EQ(std::get<NoMatch>(*found).reason, NoMatchReason::kDisabled);
    return ResultKind::kMiss;
  }

  BrokerHarness harness_;
  const Ids document_ = RandomIds(700, 1);
  Ids shifted_;
};

TEST_F(BrokerShadowTest, ADisabledKindIsAMissUntilItsTimeIsOver) {
  EXPECT_EQ(Find(shifted_), ResultKind::kShifted);
  SwitchOff(ResultKind::kShifted);
  const auto leases = broker().Stats().leases;
  EXPECT_EQ(Find(shifted_), ResultKind::kMiss);
  EXPECT_EQ(broker().Stats().leases, leases);
  EXPECT_EQ(broker().Stats().chunks.chunks_pinned, 0);
  EXPECT_EQ(broker().metrics().misses[static_cast<int>(NoMatchReason::kDisabled)].load(), 1U);
  EXPECT_EQ(Find(document_), ResultKind::kExactPrefix);  // another kind is not touched
  harness_.now_ms += broker().options().shadow.disable_ms - 1;
  EXPECT_EQ(Find(shifted_), ResultKind::kMiss);
  harness_.now_ms += 1;
  EXPECT_EQ(Find(shifted_), ResultKind::kShifted);
}

TEST_F(BrokerShadowTest, ResettingSwitchesOn) {
  SwitchOff(ResultKind::kShifted);
  SwitchOff(ResultKind::kExactPrefix);
  EXPECT_EQ(Find(document_), ResultKind::kMiss);
  EXPECT_EQ(*broker().ResetShadow(kTenant, "", ResultKind::kEdited), 0);
  EXPECT_EQ(*broker().ResetShadow(kTenant, "", ResultKind::kExactPrefix), 1);
  EXPECT_EQ(Find(document_), ResultKind::kExactPrefix);
  EXPECT_EQ(Find(shifted_), ResultKind::kMiss);
  EXPECT_EQ(*broker().ResetShadow(kTenant, harness_.engine.fingerprint(), std::nullopt), 1);
  EXPECT_EQ(Find(shifted_), ResultKind::kShifted);
  EXPECT_TRUE(
      absl::IsInvalidArgument(broker().ResetShadow(kTenant, "", ResultKind::kMiss).status()));
  EXPECT_TRUE(
      absl::IsNotFound(broker().ResetShadow(kTenant, std::string(32, 'x'), std::nullopt).status()));
}

TEST_F(BrokerShadowTest, WrongChecksAreRefusedAndCountNothing) {
  ShadowCheck stranger = Check(ResultKind::kShifted, 1);
  stranger.model = std::string(32, 'x');
  EXPECT_TRUE(absl::IsNotFound(Report(stranger)));
  EXPECT_TRUE(absl::IsNotFound(Report(Check(ResultKind::kShifted, 1), "somebody else")));
  for (const int kind : {0, 6, 7, 8, -1}) {
    const absl::Status status = Report(Check(static_cast<ResultKind>(kind), 1));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << kind;
    EXPECT_THAT(std::string(status.message()), HasSubstr("kind"));
  }
  for (const double kl : {double{NAN}, double{INFINITY}, -1.1e-6}) {
    const absl::Status status = Report(Check(ResultKind::kShifted, kl));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << kl;
    EXPECT_THAT(std::string(status.message()), HasSubstr("kl_first"));
  }
  EXPECT_EQ(broker().metrics().shadow_checks.load(), 0U);
  EXPECT_TRUE(broker().ShadowStats(kTenant).empty());
}

TEST_F(BrokerShadowTest, RoundingCountsAsZeroAndNothingOverflows) {
  ASSERT_TRUE(Report(Check(ResultKind::kExactPrefix, -1e-6)).ok());
  ASSERT_TRUE(Report(Check(ResultKind::kSemShareKv, 1e300)).ok());
  const std::vector<ShadowEntry> entries = broker().ShadowStats(kTenant);
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].kind, ResultKind::kExactPrefix);
  EXPECT_EQ(entries[0].figures.mean_kl, 0);
  EXPECT_EQ(entries[1].figures.mean_kl, 1e6);
  EXPECT_NEAR(broker().metrics().shadow_kl.sum_seconds(), 1e6, 1);
}

TEST_F(BrokerShadowTest, DeletingTheTenantForgetsItsChecks) {
  SwitchOff(ResultKind::kShifted);
  ASSERT_TRUE(broker().DeleteTenant(kTenant).ok());
  EXPECT_TRUE(broker().ShadowStats(kTenant).empty());
  ASSERT_TRUE(harness_.RegisterModel().ok());
  EXPECT_TRUE(broker().ShadowStats(kTenant).empty());
  EXPECT_EQ(broker().Stats().shadow_disabled[static_cast<int>(ResultKind::kShifted)], 0);
}

}  // namespace
}  // namespace semshare::testing
