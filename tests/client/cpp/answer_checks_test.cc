#include "client/cpp/answer_checks.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/client/cpp/samples.h"

namespace semshare::client {
namespace {

using testing::FrameOf;
using testing::Id;

TEST(CheckMatchTest, TakesAGoodMatchAndRefusesEachWrongOne) {
  const v1::Match good = testing::SampleMatch().match();
  EXPECT_TRUE(CheckMatch(good, 16).ok());
  EXPECT_FALSE(CheckMatch(good, 12).ok()) << "beyond the target";
  const std::vector<std::function<void(v1::Match*)>> mistakes = {
      [](v1::Match* match) { match->set_lease_id("short"); },
      [](v1::Match* match) { match->set_matched_tokens(11); },
      [](v1::Match* match) { match->clear_segments(); },
      [](v1::Match* match) { match->mutable_segments(1)->set_target_begin(7); },
      [](v1::Match* match) { match->mutable_segments(0)->set_tokens(0); },
      [](v1::Match* match) { match->mutable_segments(1)->set_reference(2); },
      [](v1::Match* match) { match->mutable_segments(1)->set_source_begin(9); },
      [](v1::Match* match) { match->mutable_segments(0)->set_tokens(UINT32_MAX); },
      [](v1::Match* match) { match->mutable_plan()->mutable_mandatory(2)->set_end(17); },
      [](v1::Match* match) { match->mutable_plan()->mutable_mandatory(1)->set_begin(1); },
      [](v1::Match* match) { match->mutable_plan()->add_selected(); },
  };
  for (size_t i = 0; i < mistakes.size(); ++i) {
    v1::Match match = good;
    mistakes[i](&match);
    EXPECT_EQ(CheckMatch(match, 16).code(), absl::StatusCode::kInternal) << "mistake " << i;
  }
}

TEST(CheckMissingTest, RangesNeedAnUploadAndAnOrder) {
  v1::BeginPutResponse answer;
  answer.set_reference_id(Id('r'));
  EXPECT_TRUE(CheckMissing(answer, 100).ok()) << "nothing missing";
  v1::TokenRange* range = answer.add_missing();
  range->set_end(64);
  EXPECT_FALSE(CheckMissing(answer, 100).ok()) << "no upload";
  answer.set_upload_id(Id('u'));
  EXPECT_TRUE(CheckMissing(answer, 64).ok());
  EXPECT_FALSE(CheckMissing(answer, 63).ok());
  range = answer.add_missing();
  range->set_begin(63);
  range->set_end(70);
  EXPECT_FALSE(CheckMissing(answer, 100).ok()) << "overlap";
  range->set_begin(70);
  EXPECT_FALSE(CheckMissing(answer, 100).ok()) << "empty range";
  range->set_begin(64);
  EXPECT_TRUE(CheckMissing(answer, 100).ok());
  answer.set_reference_id("");
  EXPECT_FALSE(CheckMissing(answer, 100).ok());
}

// Feeds ranges; returns the first failure, CheckEnd() included.
absl::Status Feed(const ReadExpectation& expected, const std::vector<RowRange>& ranges,
                  int64_t row_bytes = 4) {
  FrameOrder order(expected);
  for (const RowRange& range : ranges) {
    absl::Status status = order.Check({range, {}, range.count * row_bytes});
    if (!status.ok()) return status;
  }
  return order.CheckEnd();
}

TEST(FrameOrderTest, TakesAllRowsOfAllPlanesInOrder) {
  const std::vector<RowRange> ranges = {{2, 0, 0, 3}, {2, 0, 3, 2}, {2, 1, 0, 5},
                                        {3, 0, 0, 5}, {3, 1, 0, 1}, {3, 1, 1, 4}};
  EXPECT_TRUE(Feed({2, 4, 5}, ranges).ok());
  EXPECT_TRUE(Feed({2, 0, 5}, ranges).ok()) << "layer count unknown";
  EXPECT_TRUE(Feed({2, 4, 5, UniformShape(4, {4, 4})}, ranges).ok());
}

TEST(FrameOrderTest, RefusesEveryOtherOrder) {
  const ReadExpectation plain = {0, 2, 5};
  const std::vector<std::vector<RowRange>> wrong = {
      {},
      {{1, 0, 0, 5}},                              // Starts late.
      {{0, 1, 0, 5}},                              // Plane 0 skipped.
      {{0, 0, 1, 4}},                              // Row 0 skipped.
      {{0, 0, 0, 3}, {0, 0, 2, 3}},                // Rows twice.
      {{0, 0, 0, 3}, {0, 0, 4, 1}},                // A row skipped.
      {{0, 0, 0, 6}},                              // Too many rows.
      {{0, 0, 0, UINT32_MAX}},                     // Far too many.
      {{0, 0, 0, 3}, {0, 1, 0, 5}},                // Plane 0 incomplete.
      {{0, 0, 0, 5}, {0, 0, 0, 5}},                // Plane 0 twice.
      {{0, 0, 0, 5}, {0, 2, 0, 5}},                // Plane 1 skipped.
      {{0, 0, 0, 5}, {1, 1, 0, 5}},                // Plane 0 of layer 1 skipped.
      {{0, 0, 0, 5}, {1, 0, 0, 5}, {0, 1, 0, 5}},  // Backwards.
      {{0, 0, 0, 5}},                              // Layer 1 missing.
      {{0, 0, 0, 5}, {1, 0, 0, 4}},                // Rows missing.
      {{0, 0, 0, 5}, {1, 0, 0, 5}, {2, 0, 0, 5}},  // A layer too many.
      {{0, 0, 0, 0}},                              // No rows.
  };
  for (size_t i = 0; i < wrong.size(); ++i) {
    EXPECT_EQ(Feed(plain, wrong[i]).code(), absl::StatusCode::kInternal) << "case " << i;
  }
}

TEST(FrameOrderTest, AShapeTellsPlanesAndSizes) {
  const ReadExpectation expected = {0, 0, 5, UniformShape(2, {4, 4})};
  const std::vector<RowRange> good = {{0, 0, 0, 5}, {0, 1, 0, 5}, {1, 0, 0, 5}, {1, 1, 0, 5}};
  EXPECT_TRUE(Feed(expected, good).ok());
  EXPECT_FALSE(Feed(expected, good, 8).ok()) << "wider rows";
  EXPECT_FALSE(Feed(expected, {{0, 0, 0, 5}, {1, 0, 0, 5}}).ok()) << "plane 1 skipped";
  EXPECT_FALSE(Feed(expected, {good[0], good[1], good[2]}).ok()) << "last plane missing";
  EXPECT_FALSE(Feed(expected, {good[0], good[1], {0, 2, 0, 5}}).ok()) << "a plane too many";
}

TEST(FrameOrderTest, PayloadsAreWholeRowsWithinTheLimit) {
  FrameOrder order({0, 1, 8});
  EXPECT_FALSE(order.Check({{0, 0, 0, 2}, {}, 9}).ok()) << "half a row";
  EXPECT_FALSE(order.Check({{0, 0, 0, 2}, {}, 0}).ok()) << "no bytes";
  EXPECT_FALSE(order.Check({{0, 0, 0, 1}, {}, kMaxFramePayloadBytes + 1}).ok());
  EXPECT_TRUE(order.Check({{0, 0, 0, 1}, {}, kMaxFramePayloadBytes}).ok());
  EXPECT_FALSE(order.Check({{0, 0, 1, 2}, {}, 8}).ok()) << "rows of another size";
}

}  // namespace
}  // namespace semshare::client
