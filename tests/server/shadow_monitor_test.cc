#include "server/shadow_monitor.h"

#include <cmath>

#include "gtest/gtest.h"

namespace semshare {
namespace {

constexpr NamespaceId kNs = {1, 1};
constexpr NamespaceId kOther = {1, 2};
constexpr ResultKind kKind = ResultKind::kShifted;
constexpr int64_t kNow = 1'000'000;

ShadowOptions Options() {
  ShadowOptions options;
  options.kl_limit = 0.5;
  options.minimum_checks = 4;
  options.disable_ms = 1000;
  return options;
}

class ShadowMonitorTest : public ::testing::Test {
 protected:
  ShadowMonitor::Verdict Report(double kl, bool same_token = true, int64_t now_ms = kNow) {
    return monitor_.Report(kNs, kKind, kl, same_token, now_ms);
  }
  ShadowFigures Figures(int64_t now_ms = kNow) {
    const auto figures = monitor_.Figures(kNs, now_ms);
    EXPECT_EQ(figures.size(), 1U);
    return figures.empty() ? ShadowFigures() : figures[0].second;
  }
  // So many bad checks that the kind goes off at kNow.
  void SwitchOff() {
    for (int i = 0; i < 4; ++i) Report(2);
    ASSERT_EQ(monitor_.DisabledUntil(kNs, kKind, kNow), kNow + 1000);
  }

  ShadowMonitor monitor_{Options(), 10};
};

TEST(ShadowOptionsTest, LimitsAreChecked) {
  EXPECT_TRUE(ShadowOptions().Validate().ok());
  const auto valid = [](double kl_limit, int minimum_checks, int64_t disable_ms) {
    ShadowOptions options;
    options.kl_limit = kl_limit;
    options.minimum_checks = minimum_checks;
    options.disable_ms = disable_ms;
    return options.Validate().ok();
  };
  EXPECT_TRUE(valid(0, 1, 1));
  EXPECT_FALSE(valid(-1e-9, 1, 1));
  EXPECT_FALSE(valid(NAN, 1, 1));
  EXPECT_FALSE(valid(INFINITY, 1, 1));
  EXPECT_FALSE(valid(0, 0, 1));
  EXPECT_TRUE(valid(0, ShadowMonitor::kWindow, 1));
  EXPECT_FALSE(valid(0, ShadowMonitor::kWindow + 1, 1));
  EXPECT_FALSE(valid(0, 1, 0));
}

TEST_F(ShadowMonitorTest, AKindGoesOffWhereEnoughChecksMissTheLimit) {
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(Report(2).disabled) << i;
  EXPECT_EQ(monitor_.DisabledUntil(kNs, kKind, kNow), 0);
  const ShadowMonitor::Verdict verdict = Report(2, false);
  EXPECT_TRUE(verdict.disabled);
  EXPECT_TRUE(verdict.newly_disabled);
  EXPECT_EQ(verdict.figures.disabled_until_ms, kNow + 1000);
  EXPECT_EQ(verdict.figures.mean_kl, 2);
  EXPECT_EQ(verdict.figures.agreement, 0.75);
  EXPECT_EQ(monitor_.DisabledUntil(kNs, kKind, kNow), kNow + 1000);
}

TEST_F(ShadowMonitorTest, TheMeanMayReachTheLimitAndNotPassIt) {
  for (int i = 0; i < 8; ++i) EXPECT_FALSE(Report(i % 2).disabled);
  EXPECT_EQ(Figures().mean_kl, 0.5);
  EXPECT_TRUE(Report(0.51).disabled);
}

TEST_F(ShadowMonitorTest, OnlyTheLatestChecksCount) {
  for (int i = 0; i < 3; ++i) Report(0, false);
  for (int i = 0; i < ShadowMonitor::kWindow - 3; ++i) Report(0.25);
  EXPECT_EQ(Figures().window, ShadowMonitor::kWindow);
  EXPECT_LT(Figures().mean_kl, 0.25);
  for (int i = 0; i < 3; ++i) Report(0.25);
  EXPECT_EQ(Figures().window, ShadowMonitor::kWindow);
  EXPECT_EQ(Figures().checks, ShadowMonitor::kWindow + 3U);
  EXPECT_EQ(Figures().mean_kl, 0.25);
  EXPECT_EQ(Figures().largest_kl, 0.25);
  EXPECT_EQ(Figures().agreement, 1);
}

TEST_F(ShadowMonitorTest, WhenItsTimeIsOverAKindStartsAnew) {
  SwitchOff();
  EXPECT_EQ(monitor_.DisabledUntil(kNs, kKind, kNow + 999), kNow + 1000);
  EXPECT_EQ(monitor_.CountDisabled(kNow + 999)[static_cast<int>(kKind)], 1);
  EXPECT_EQ(monitor_.DisabledUntil(kNs, kKind, kNow + 1000), 0);
  EXPECT_EQ(monitor_.CountDisabled(kNow + 1000)[static_cast<int>(kKind)], 0);
  EXPECT_EQ(Figures(kNow + 1000).window, 0);
  EXPECT_EQ(Figures(kNow + 1000).disabled_until_ms, 0);
  EXPECT_EQ(Figures(kNow + 1000).checks, 4U);
  // The checks from before count no more: it takes as many again.
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(Report(2, true, kNow + 1000).disabled) << i;
  EXPECT_EQ(Figures(kNow + 1000).window, 3);
  EXPECT_TRUE(Report(2, true, kNow + 1000).newly_disabled);
}

TEST_F(ShadowMonitorTest, LateChecksDoNotProlongTheTime) {
  SwitchOff();
  const ShadowMonitor::Verdict late = Report(2, true, kNow + 500);
  EXPECT_TRUE(late.disabled);
  EXPECT_FALSE(late.newly_disabled);
  EXPECT_EQ(monitor_.DisabledUntil(kNs, kKind, kNow + 500), kNow + 1000);
  // Nor do good ones end it.
  for (int i = 0; i < 100; ++i) Report(0, true, kNow + 500);
  EXPECT_EQ(monitor_.DisabledUntil(kNs, kKind, kNow + 500), kNow + 1000);
}

TEST_F(ShadowMonitorTest, NamespacesAndKindsAreApart) {
  SwitchOff();
  monitor_.Report(kOther, kKind, 0, true, kNow);
  EXPECT_EQ(monitor_.DisabledUntil(kOther, kKind, kNow), 0);
  EXPECT_EQ(monitor_.DisabledUntil(kNs, ResultKind::kEdited, kNow), 0);
  EXPECT_EQ(monitor_.Figures(kOther, kNow)[0].second.checks, 1U);
  EXPECT_TRUE(monitor_.Figures({9, 9}, kNow).empty());
}

TEST(ShadowMonitorLimitTest, ALimitOf0SwitchesNothingOff) {
  ShadowOptions options = Options();
  options.kl_limit = 0;
  ShadowMonitor monitor(options, 10);
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(monitor.Report(kNs, kKind, 100, false, kNow).disabled);
  }
  EXPECT_EQ(monitor.Figures(kNs, kNow)[0].second.mean_kl, 100);
}

TEST_F(ShadowMonitorTest, ForgettingSwitchesOn) {
  SwitchOff();
  monitor_.Report(kNs, ResultKind::kEdited, 0, true, kNow);
  monitor_.Report(kOther, kKind, 0, true, kNow);
  EXPECT_TRUE(monitor_.Forget(kNs, kKind));
  EXPECT_FALSE(monitor_.Forget(kNs, kKind));
  EXPECT_EQ(monitor_.DisabledUntil(kNs, kKind, kNow), 0);
  EXPECT_FALSE(Report(2).disabled);
  EXPECT_EQ(monitor_.Forget(kNs), 2);
  EXPECT_EQ(monitor_.Forget(kNs), 0);
  EXPECT_EQ(monitor_.size(), 1);
}

TEST_F(ShadowMonitorTest, AtTheLimitTheEntryReportedOnLeastRecentlyGoes) {
  SwitchOff();
  for (uint64_t i = 0; i < 9; ++i) monitor_.Report({2, i}, kKind, 0, true, kNow);
  monitor_.Report({2, 0}, kKind, 0, true, kNow);  // {2, 1} is the oldest that is on
  EXPECT_EQ(monitor_.size(), 10);
  monitor_.Report({3, 0}, kKind, 0, true, kNow);
  EXPECT_EQ(monitor_.size(), 10);
  EXPECT_TRUE(monitor_.Figures({2, 1}, kNow).empty());
  EXPECT_EQ(monitor_.Figures({2, 0}, kNow).size(), 1U);
  // One that is off stays, until its time is over.
  EXPECT_NE(monitor_.DisabledUntil(kNs, kKind, kNow), 0);
  monitor_.Report({3, 1}, kKind, 0, true, kNow + 1000);
  EXPECT_TRUE(monitor_.Figures(kNs, kNow + 1000).empty());
}

}  // namespace
}  // namespace semshare
