#include "server/match/exact_runs.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "server/match/seed_table.h"
#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

struct Outcome {
  RunWork work;
  std::vector<TokenRow> rows;
  int64_t matched = 0;
};

Outcome Assign(const Ids& target, const std::vector<Ids>& sources) {
  Outcome outcome;
  outcome.rows.resize(target.size());
  outcome.work = AssignExactRuns(target, sources, RunOptions(), outcome.rows);
  for (size_t t = 0; t < target.size(); ++t) {
    const TokenRow& row = outcome.rows[t];
    if (!row.matched()) continue;
    ++outcome.matched;
    EXPECT_EQ(target[t], sources[row.source][row.position]);
  }
  return outcome;
}

// Bounds the work by the tokens, whatever the input.
void ExpectLinear(const Outcome& outcome, int64_t tokens) {
  EXPECT_LE(outcome.work.occurrences, tokens * SeedTable::kMaxOccurrences);
  EXPECT_LE(outcome.work.measured, outcome.work.occurrences);
  EXPECT_LE(outcome.work.taken, 3 * outcome.work.measured + 1);
}

TEST(ExactRunsTest, AllTokensEqual) {
  const Outcome outcome = Assign(Ids(5000, 7), {Ids(4000, 7)});
  EXPECT_EQ(outcome.matched, 5000);
  ExpectLinear(outcome, 5000);
  EXPECT_LE(outcome.work.measured, 5000 * (SeedTable::kCommonOccurrences + 1));
}

TEST(ExactRunsTest, PeriodicText) {
  for (const int64_t period : {2, 3, 7, 8, 9, 100}) {
    Ids source(5000);
    Ids target(5000);
    for (int64_t i = 0; i < 5000; ++i) {
      source[i] = static_cast<uint32_t>(i % period);
      target[i] = static_cast<uint32_t>((i + 1) % period);
    }
    const Outcome outcome = Assign(target, {source});
    EXPECT_GE(outcome.matched, 5000 - period) << period;
    ExpectLinear(outcome, 5000);
  }
}

TEST(ExactRunsTest, FewSymbolsAndManyShortRuns) {
  Prompts prompts(3, 2);
  ExpectLinear(Assign(prompts.Text(5000), {prompts.Text(5000)}), 5000);
  // Many copies of one paragraph, each ended by a token of its own.
  const Ids paragraph = prompts.Text(50);
  Ids source;
  Ids target;
  for (uint32_t i = 0; i < 100; ++i) {
    source = Join({source, paragraph, {100 + i}});
    target = Join({target, paragraph, {300 + i}});
  }
  const Outcome outcome = Assign(target, {source});
  EXPECT_EQ(outcome.matched, 5000);
  ExpectLinear(outcome, 5100);
}

TEST(ExactRunsTest, TakesTheLongestRunFirst) {
  Prompts prompts(4, 50000);
  const Ids a = prompts.Text(40);
  const Ids b = prompts.Text(60);
  // Two runs overlap in b: the longer one takes it whole.
  const std::vector<Ids> sources = {Join({prompts.Text(10), a, Slice(b, 0, 15)}),
                                    Join({prompts.Text(10), b})};
  const Outcome outcome = Assign(Join({prompts.Text(5), a, b, prompts.Text(5)}), sources);
  EXPECT_EQ(outcome.matched, 100);
  EXPECT_EQ(outcome.rows[5].source, 0);
  EXPECT_EQ(outcome.rows[45].source, 1);
}

TEST(ExactRunsTest, AnExactPrefixIsWorthASecondReference) {
  Prompts prompts(5, 50000);
  const Ids system = prompts.Text(100);
  const Ids document = prompts.Text(400);
  // The second source holds everything, but moved; the first one's rows are exact.
  const std::vector<Ids> sources = {Join({system, prompts.Text(300)}),
                                    Join({prompts.Text(20), system, document})};
  const Outcome outcome = Assign(Join({system, document}), sources);
  EXPECT_EQ(outcome.matched, 500);
  EXPECT_EQ(outcome.rows[0].source, 0);
  EXPECT_EQ(outcome.rows[99].position, 99);
  EXPECT_EQ(outcome.rows[100].source, 1);
}

TEST(ExactRunsTest, WithoutSourcesOrRunsNothingIsTaken) {
  Prompts prompts(6, 50000);
  EXPECT_EQ(Assign(prompts.Text(100), {}).matched, 0);
  EXPECT_EQ(Assign({1, 2, 3}, {{1, 2, 3, 4}}).matched, 0);  // shorter than a run
  EXPECT_EQ(Assign(Ids(100, 1), {Ids(100, 2), Ids()}).matched, 0);
}

}  // namespace
}  // namespace semshare
