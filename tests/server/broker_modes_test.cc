// What a caller may ask for: modes that the policy allows, and the paper's mode with its numbers.
#include <cmath>
#include <variant>
#include <vector>

#include "gtest/gtest.h"
#include "server/broker.h"
#include "tests/server/broker_harness.h"

namespace semshare::testing {
namespace {

class BrokerModesTest : public ::testing::Test {
 protected:
  BrokerModesTest() : harness_(BackendCases()[0]) { EXPECT_TRUE(harness_.RegisterModel().ok()); }
  Broker& broker() { return *harness_.broker; }

  BrokerHarness harness_;
  const std::vector<uint32_t> document_ = RandomIds(700, 1);
};

TEST_F(BrokerModesTest, ModesAreChecked) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  FindRequest find = harness_.Find(document_);
  find.mode = MatchMode::kFuzzy;
  EXPECT_TRUE(absl::IsPermissionDenied(broker().FindMatch(kTenant, find).status()));
  find.mode = MatchMode::kSemShareKv;
  EXPECT_TRUE(absl::IsInvalidArgument(broker().FindMatch(kTenant, find).status()));
  find.preset = Preset::kSemShareKv;
  const auto paper = harness_.Match(find);
  ASSERT_TRUE(paper.ok()) << paper.status();
  EXPECT_EQ(paper->kind, ResultKind::kSemShareKv);
  EXPECT_EQ(paper->plan.recompute_tokens.size(), static_cast<size_t>(TinyEngine::kLayers));
  find.paper.alpha_recompute = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(broker().FindMatch(kTenant, find).status()));
}

TEST_F(BrokerModesTest, ThePapersNumbersAreTheCallers) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  FindRequest find = harness_.Find(document_);
  find.mode = MatchMode::kSemShareKv;
  find.preset = Preset::kSemShareKv;
  find.paper.high_deviation_share = 0.1;
  find.paper.alpha_retain = 0.5;
  const auto paper = harness_.Match(find);
  ASSERT_TRUE(paper.ok()) << paper.status();
  ASSERT_GE(paper->plan.recompute_tokens.size(), 2u);
  EXPECT_EQ(paper->plan.recompute_tokens[1],
            std::llround(0.1 * static_cast<double>(find.token_ids.size())));
  EXPECT_EQ(paper->plan.paper.alpha_retain, 0.5);
  // A scale of one bit: whatever is not the same prompt is too unlike.
  find.paper.distance_scale = 1;
  find.token_ids = RandomIds(50, 40);
  find.token_ids.insert(find.token_ids.end(), document_.begin() + 20, document_.end());
  const auto unlike = broker().FindMatch(kTenant, find);
  ASSERT_TRUE(unlike.ok()) << unlike.status();
  EXPECT_TRUE(std::holds_alternative<NoMatch>(*unlike));
}

}  // namespace
}  // namespace semshare::testing
