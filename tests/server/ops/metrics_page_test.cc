#include "server/ops/metrics_page.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/broker_harness.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;

TEST(MetricsPageTest, EverySeriesIsThereFromTheStart) {
  BrokerHarness harness(BackendCases()[0]);
  const std::string page = MetricsPage(harness.broker.get());
#define SEMSHARE_EXPECT_COUNTER(field, name, help) \
  EXPECT_THAT(page, HasSubstr("\nsemshare_" name " 0\n"));
  SEMSHARE_COUNTERS(SEMSHARE_EXPECT_COUNTER)
#undef SEMSHARE_EXPECT_COUNTER
  EXPECT_THAT(page, HasSubstr("semshare_find_results_total{kind=\"shifted\"} 0"));
  EXPECT_THAT(page, HasSubstr("semshare_find_misses_total{reason=\"cost\"} 0"));
  EXPECT_THAT(page, HasSubstr("semshare_find_seconds_bucket{le=\"+Inf\"} 0"));
  EXPECT_THAT(page, HasSubstr("semshare_device_bytes_total "));
}

TEST(MetricsPageTest, AFallbackToTheCpuIsAGauge) {
  BrokerHarness harness(BackendCases()[0]);
  EXPECT_THAT(MetricsPage(harness.broker.get()), HasSubstr("\nsemshare_backend_fallback 0\n"));
  harness.broker->metrics().backend_fallback = 1;
  EXPECT_THAT(MetricsPage(harness.broker.get()), HasSubstr("\nsemshare_backend_fallback 1\n"));
}

TEST(MetricsPageTest, ShadowChecksAndWhatTheySwitchedOff) {
  BrokerHarness harness(BackendCases()[0]);
  ASSERT_TRUE(harness.RegisterModel().ok());
  EXPECT_THAT(MetricsPage(harness.broker.get()),
              HasSubstr("semshare_shadow_disabled{kind=\"shifted\"} 0"));
  ShadowCheck check;
  check.model = harness.engine.fingerprint();
  check.kind = ResultKind::kShifted;
  check.kl_first = 2;
  for (int i = 0; i < harness.broker->options().shadow.minimum_checks; ++i) {
    check.same_token = i > 2;
    ASSERT_TRUE(harness.broker->ReportShadowCheck(kTenant, check).ok());
  }
  const std::string page = MetricsPage(harness.broker.get());
  EXPECT_THAT(page, HasSubstr("semshare_shadow_checks_total 8\n"));
  EXPECT_THAT(page, HasSubstr("semshare_shadow_disagreements_total 3\n"));
  EXPECT_THAT(page, HasSubstr("semshare_shadow_switch_offs_total 1\n"));
  EXPECT_THAT(page, HasSubstr("semshare_shadow_kl_nats_sum 16\n"));
  EXPECT_THAT(page, HasSubstr("semshare_shadow_disabled{kind=\"shifted\"} 1"));
  EXPECT_THAT(page, HasSubstr("semshare_shadow_disabled{kind=\"edited\"} 0"));
  EXPECT_THAT(page, HasSubstr("semshare_find_misses_total{reason=\"disabled\"} 0"));
}

TEST(MetricsPageTest, CountsTokensAndResults) {
  BrokerHarness harness(BackendCases()[0]);
  ASSERT_TRUE(harness.RegisterModel().ok());
  const std::vector<uint32_t> ids = RandomIds(300, 1);
  ASSERT_TRUE(harness.Store(harness.Put(ids)).ok());
  ASSERT_TRUE(harness.Match(harness.Find(ids)).ok());
  const std::string page = MetricsPage(harness.broker.get());
  EXPECT_THAT(page, HasSubstr("semshare_puts_committed_total 1\n"));
  EXPECT_THAT(page, HasSubstr("semshare_find_tokens_requested_total 300\n"));
  EXPECT_THAT(page, HasSubstr("semshare_find_tokens_matched_total 280\n"));
  EXPECT_THAT(page, HasSubstr("semshare_find_results_total{kind=\"exact_prefix\"} 1"));
  EXPECT_THAT(page, HasSubstr("semshare_references 1\n"));
}

}  // namespace
}  // namespace semshare::testing
