#include "kernels/cuda/staging_plan.h"

#include <gtest/gtest.h>

namespace semshare {
namespace {

TEST(StagingPlanTest, AreasAreAlignedAndDisjoint) {
  StagingPlan plan(4096);
  EXPECT_EQ(*plan.Add("a", 10), 0);
  EXPECT_EQ(plan.used(), 10);
  EXPECT_EQ(*plan.Add("b", 256), 256);
  EXPECT_EQ(*plan.Add("c", 1), 512);
  EXPECT_EQ(*plan.Add("empty", 0), 768);
  EXPECT_EQ(*plan.Add("d", 1), 768);
  EXPECT_EQ(plan.used(), 769);
}

TEST(StagingPlanTest, TheLimitIsNamed) {
  StagingPlan plan(4096);
  EXPECT_TRUE(plan.Add("first", 4096).ok());
  const absl::Status status = plan.Add("angles", 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("angles has 1 bytes"), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find("4096 bytes (staging_bytes)"), absl::string_view::npos) << status;
  EXPECT_FALSE(StagingPlan(4096).Add("a", 4097).ok());
  EXPECT_FALSE(StagingPlan(4096).Add("a", int64_t{1} << 62).ok());
  EXPECT_TRUE(StagingPlan(4096).Add("a", 4096).ok());
}

// What does not fit takes no place.
TEST(StagingPlanTest, ARefusedAreaLeavesThePlanAsItWas) {
  StagingPlan plan(1024);
  ASSERT_TRUE(plan.Add("a", 100).ok());
  ASSERT_FALSE(plan.Add("b", 1000).ok());
  EXPECT_EQ(plan.used(), 100);
  EXPECT_EQ(*plan.Add("c", 768), 256);
}

}  // namespace
}  // namespace semshare
