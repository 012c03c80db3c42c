#include "server/match/reference_places.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace semshare {
namespace {

TEST(ReferencePlacesTest, KeepsWhatAChangeLeaves) {
  ReferencePlaces places;
  const ReferenceId id{3, 4};
  {
    ReferencePlaces::Change change(&places, id);
    EXPECT_FALSE(change.slot.has_value());
    change.slot = 9;
  }
  EXPECT_EQ(places.size(), 1);
  EXPECT_GT(places.bytes(), 0);
  {
    ReferencePlaces::Change change(&places, id);
    EXPECT_EQ(change.slot, 9u);
  }
  {
    ReferencePlaces::Change change(&places, id);
    EXPECT_EQ(change.slot, 9u);
    change.slot.reset();
  }
  EXPECT_EQ(places.size(), 0);
  { const ReferencePlaces::Change nothing(&places, id); }
  EXPECT_EQ(places.size(), 0);
}

TEST(ReferencePlacesTest, ChangesOfOneReferenceComeOneAfterAnother) {
  ReferencePlaces places;
  const ReferenceId id{1, 1};
  uint32_t changes = 0;  // no lock of its own: a change is exclusive
  const auto change_often = [&] {
    for (int i = 0; i < 500; ++i) {
      ReferencePlaces::Change change(&places, id);
      EXPECT_EQ(change.slot.value_or(0), changes);
      change.slot = ++changes;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back(change_often);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(changes, 1500u);
}

TEST(ReferencePlacesTest, ChangesOfOthersDoNotWait) {
  ReferencePlaces places;
  const ReferencePlaces::Change first(&places, {1, 1});
  const ReferencePlaces::Change same_stripe(&places, {65, 2});
  const ReferencePlaces::Change other(&places, {2, 1});
  EXPECT_EQ(places.size(), 3);
}

}  // namespace
}  // namespace semshare
