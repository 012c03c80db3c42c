#include "server/match/run_order.h"

#include <gtest/gtest.h>

namespace semshare {
namespace {

TEST(RunOrderTest, PassagesOfOneSourceInItsOrderAreNotReordered) {
  EXPECT_FALSE(IsReordered({}));
  EXPECT_FALSE(IsReordered({{0, 0, 50, 100}, {100, 0, 700, 100}, {250, 0, 900, 100}}));
}

TEST(RunOrderTest, AnotherOrderOrAnotherSourceIs) {
  EXPECT_TRUE(IsReordered({{0, 0, 700, 100}, {100, 0, 50, 100}}));
  EXPECT_TRUE(IsReordered({{0, 0, 50, 100}, {100, 1, 700, 100}}));
}

TEST(RunOrderTest, LittleOfItOrShortRunsAreNot) {
  EXPECT_FALSE(IsReordered({{0, 0, 700, 15}, {100, 0, 50, 15}}));
  EXPECT_FALSE(IsReordered({{0, 0, 100, 980}, {980, 0, 50, 20}}));
  EXPECT_TRUE(IsReordered({{0, 0, 100, 970}, {970, 0, 50, 30}}));
}

}  // namespace
}  // namespace semshare
