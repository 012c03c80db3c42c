#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/ops/options.h"

namespace semshare {
namespace {

// absl flags are the process's, so the command line is read once here, as it is there.
TEST(FlagsTest, OperatorsSetLimitsAndGates) {
  std::vector<std::string> arguments = {"semshared",
                                        "--max_tokens=1000",
                                        "--max_leases=5",
                                        "--max_uploads=6",
                                        "--max_models=7",
                                        "--lease_memory_ms=8",
                                        "--minimum_coverage=0.25",
                                        "--minimum_match_tokens=9",
                                        "--maximum_recomputed_share=0.5",
                                        "--shadow_kl_limit=0.125",
                                        "--shadow_minimum_checks=64",
                                        "--shadow_disable_ms=10"};
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  const auto set = OptionsFromFlags(static_cast<int>(pointers.size()), pointers.data());
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->broker.limits.max_tokens, 1000);
  EXPECT_EQ(set->broker.limits.max_leases, 5);
  EXPECT_EQ(set->broker.limits.max_uploads, 6);
  EXPECT_EQ(set->broker.limits.max_models, 7);
  EXPECT_EQ(set->broker.lease_memory_ms, 8);
  EXPECT_EQ(set->broker.minimum_match_tokens, 9);
  EXPECT_EQ(set->broker.minimum_coverage, 0.25);
  EXPECT_EQ(set->broker.maximum_recomputed_share, 0.5);
  EXPECT_EQ(set->broker.shadow.kl_limit, 0.125);
  EXPECT_EQ(set->broker.shadow.minimum_checks, 64);
  EXPECT_EQ(set->broker.shadow.disable_ms, 10);
  // What is not said keeps its default.
  EXPECT_EQ(set->broker.lease_timeout_ms, BrokerOptions().lease_timeout_ms);
}

}  // namespace
}  // namespace semshare
