#include "server/match_rows.h"

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

KvLayout Layout() {
  RotaryDescriptor rotary;
  rotary.width = 2;
  rotary.inv_freq = {1.0};
  const PlaneLayout plane{.name = "k", .heads = 1, .width = 4, .rotary = 0};
  auto layout = KvLayout::Create(Dtype::kFloat32, {{plane}}, {rotary});
  SEMSHARE_CHECK(layout.ok());
  return *std::move(layout);
}

TEST(BuildMatchRowsTest, FollowsTheSegmentsAndTurnsOnlyWhatMoved) {
  // A row at its own place, and two of another reference that moved, over the end of a chunk.
  const std::vector<Segment> segments = {{3, 0, 3, 1, SegmentKind::kExact},
                                         {10, 1, 63, 2, SegmentKind::kToken}};
  const std::vector<std::vector<int64_t>> offsets = {{1000}, {2000, 3000}};
  const MatchRows match = BuildMatchRows(segments, offsets, Layout());
  EXPECT_THAT(match.targets, ElementsAre(3, 10, 11));
  std::vector<std::vector<int64_t>> rows;
  for (const RealignRow& row : match.rows) {
    rows.push_back({row.chunk_offset, row.chunk_token, row.angle_row, row.slot});
  }
  EXPECT_THAT(rows, ElementsAre(ElementsAre(1000, 3, -1, 0), ElementsAre(2000, 63, 0, 1),
                                ElementsAre(3000, 0, 1, 2)));
  EXPECT_EQ(match.angle_rows, 2);
  EXPECT_THAT(match.angles, ElementsAre(SizeIs(4)));  // a cosine and a sine for each
}

// Counts how often rows are made.
class SharedMatchRowsTest : public ::testing::Test {
 protected:
  MatchRows Build() {
    ++built_;
    MatchRows rows;
    rows.targets = {7};
    return rows;
  }
  MatchRowsPtr Get() {
    return shared_.Get([this] { return Build(); });
  }
  // What is kept for the first Get, keeps this.
  std::weak_ptr<void> Prepare() {
    const auto claim = std::make_shared<int>();
    shared_.Prepare([this] { return Build(); }, claim);
    return claim;
  }

  SharedMatchRows shared_;
  int built_ = 0;  // no lock: builders never run at once
};

TEST_F(SharedMatchRowsTest, ReadersShareTheRowsAsLongAsOneHasThem) {
  std::vector<MatchRowsPtr> rows(8);
  std::vector<std::thread> threads;
  for (MatchRowsPtr& each : rows) threads.emplace_back([&each, this] { each = Get(); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(built_, 1);
  for (const MatchRowsPtr& each : rows) EXPECT_EQ(each, rows[0]);
  EXPECT_THAT(rows[0]->targets, ElementsAre(7));
  rows.clear();
  Get();
  EXPECT_EQ(built_, 2);
}

TEST_F(SharedMatchRowsTest, PreparedRowsWaitForTheFirstReader) {
  const std::weak_ptr<void> claim = Prepare();
  EXPECT_EQ(built_, 1);
  EXPECT_FALSE(claim.expired());
  const MatchRowsPtr rows = Get();
  EXPECT_EQ(built_, 1);
  EXPECT_TRUE(claim.expired());
}

TEST_F(SharedMatchRowsTest, NothingIsPreparedOnceThereWasAReader) {
  Get();
  EXPECT_TRUE(Prepare().expired());
  EXPECT_EQ(built_, 1);
}

}  // namespace
}  // namespace semshare
