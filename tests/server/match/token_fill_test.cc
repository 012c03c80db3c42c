#include "server/match/token_fill.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

using testing::ElementsAre;

// Rows for a target whose first and last `run` tokens sit at the given source positions.
std::vector<TokenRow> Ends(int64_t tokens, int64_t run, TokenRow first, TokenRow last) {
  std::vector<TokenRow> rows(tokens);
  for (int64_t i = 0; i < run; ++i) {
    rows[i] = {first.source, SegmentKind::kExact, first.position + i};
    rows[tokens - run + i] = {last.source, SegmentKind::kExact, last.position + i};
  }
  return rows;
}

std::vector<int64_t> Positions(const std::vector<TokenRow>& rows, int64_t begin, int64_t end) {
  std::vector<int64_t> positions;
  for (int64_t t = begin; t < end; ++t) {
    positions.push_back(rows[t].matched() ? rows[t].position : -1);
  }
  return positions;
}

TEST(TokenFillTest, FillsAscendBetweenTheNeighbours) {
  const Ids source = {90, 91, 1, 2, 3, 4, 5, 92, 93};
  const Ids target = {90, 91, 1, 3, 2, 5, 92, 93};
  std::vector<TokenRow> rows = Ends(8, 2, {0, {}, 0}, {0, {}, 7});
  FillTokens(target, {source}, AlignOptions(), rows);
  EXPECT_EQ(rows[2].position, 2);
  EXPECT_EQ(rows[5].position, 6);
  // Of 3 and 2, which would cross, one is taken.
  EXPECT_EQ(rows[3].matched() + rows[4].matched(), 1);
  EXPECT_EQ(rows[2].kind, SegmentKind::kToken);
}

TEST(TokenFillTest, NeverOutsideTheNeighboursOfAnOrderedGap) {
  // The source has nothing between the runs; the token occurs right beside them.
  const Ids source = {5, 90, 91, 92, 93, 5};
  const Ids target = {90, 91, 5, 92, 93};
  std::vector<TokenRow> rows = Ends(5, 2, {0, {}, 1}, {0, {}, 3});
  FillTokens(target, {source}, AlignOptions(), rows);
  EXPECT_FALSE(rows[2].matched());
}

TEST(TokenFillTest, TakesThePlaceNearestToThePrediction) {
  Ids source(100, 1);
  source[20] = 5;
  source[31] = 5;
  source[45] = 5;
  Ids target = source;
  target[20] = 2;
  target[45] = 2;
  // The gap is tokens 10..49; the one 5 left predicts 31.
  std::vector<TokenRow> rows(100);
  for (int64_t t = 0; t < 100; ++t) {
    if (t < 10 || t >= 50) rows[t] = {0, SegmentKind::kExact, t};
  }
  FillTokens(target, {source}, AlignOptions(), rows);
  EXPECT_EQ(rows[31].position, 31);
}

TEST(TokenFillTest, StopsAtTheWindow) {
  for (const int64_t distance : {32, 33}) {
    Ids source(200, 1);
    Ids target(200, 2);
    source[100 + distance] = 5;
    target[100] = 5;
    std::vector<TokenRow> rows = Ends(200, 50, {0, {}, 0}, {0, {}, 150});
    FillTokens(target, {source}, AlignOptions(), rows);
    EXPECT_EQ(rows[100].matched(), distance == 32) << distance;
  }
}

TEST(TokenFillTest, FollowsBothPredictionsAcrossADeletedPassage) {
  Prompts prompts(1, 50000);
  const Ids head = prompts.Text(20);
  const Ids left = prompts.Text(5);
  const Ids deleted = prompts.Text(500);
  const Ids right = prompts.Text(5);
  const Ids tail = prompts.Text(20);
  const Ids source = Join({head, left, deleted, right, tail});
  const Ids target = Join({head, left, right, tail});
  std::vector<TokenRow> rows = Ends(50, 20, {0, {}, 0}, {0, {}, 530});
  FillTokens(target, {source}, AlignOptions(), rows);
  EXPECT_THAT(Positions(rows, 20, 30), ElementsAre(20, 21, 22, 23, 24, 525, 526, 527, 528, 529));
}

TEST(TokenFillTest, UnorderedNeighboursEachFillTheirHalf) {
  // The run on the left goes on with 1, 2; the one on the right is preceded by 3, 4.
  const Ids first = {90, 91, 1, 2, 60};
  const Ids second = {61, 3, 4, 92, 93};
  const Ids target = {90, 91, 1, 2, 3, 4, 92, 93};
  std::vector<TokenRow> rows = Ends(8, 2, {0, {}, 0}, {1, {}, 3});
  FillTokens(target, {first, second}, AlignOptions(), rows);
  EXPECT_THAT(Positions(rows, 2, 6), ElementsAre(2, 3, 1, 2));
  EXPECT_EQ(rows[3].source, 0);
  EXPECT_EQ(rows[4].source, 1);
}

TEST(TokenFillTest, GapsAtTheEndsFollowTheOnlyNeighbour) {
  const Ids source = {1, 2, 90, 91, 3, 4};
  const Ids target = {1, 2, 90, 91, 3, 4};
  std::vector<TokenRow> rows(6);
  rows[2] = {0, SegmentKind::kExact, 2};
  rows[3] = {0, SegmentKind::kExact, 3};
  FillTokens(target, {source}, AlignOptions(), rows);
  EXPECT_THAT(Positions(rows, 0, 6), ElementsAre(0, 1, 2, 3, 4, 5));
  std::vector<TokenRow> none(6);
  FillTokens(target, {source}, AlignOptions(), none);
  EXPECT_FALSE(none[0].matched());
}

TEST(TokenFillTest, OneContiguousFillBeatsScatteredOnes) {
  // 1 2 3 occurs whole at 12; the scattered tokens before lie nearer to the prediction.
  const Ids source = {90, 91, 1, 60, 2, 61, 3, 62, 63, 64, 65, 66, 1, 2, 3, 92, 93};
  const Ids target = {90, 91, 1, 2, 3, 92, 93};
  std::vector<TokenRow> rows = Ends(7, 2, {0, {}, 0}, {0, {}, 15});
  FillTokens(target, {source}, AlignOptions(), rows);
  EXPECT_THAT(Positions(rows, 2, 5), ElementsAre(12, 13, 14));
}

TEST(TokenFillTest, EqualTokensEverywhereStayBounded) {
  // Every place of the window is a candidate; at most kMaxFillPlaces of them are kept.
  const Ids source(6000, 1);
  const Ids target(6000, 1);
  std::vector<TokenRow> rows(6000);
  rows[0] = {0, SegmentKind::kExact, 0};
  rows[5999] = {0, SegmentKind::kExact, 5999};
  FillTokens(target, {source}, AlignOptions(), rows);
  for (int64_t t = 0; t < 6000; ++t) ASSERT_EQ(rows[t].position, t);
}

}  // namespace
}  // namespace semshare
