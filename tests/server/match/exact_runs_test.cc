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
  const std::vector<SymbolSpan> spans(sources.begin(), sources.end());
  outcome.work = AssignExactRuns(target, spans, RunOptions(), outcome.rows);
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
  EXPECT_LE(outcome.work.occurrences, 2 * tokens * SeedTable::kMaxOccurrences);  // two passes
  EXPECT_LE(outcome.work.measured, outcome.work.occurrences);
  EXPECT_LE(outcome.work.taken, 3 * outcome.work.measured + 1);
}

TEST(ExactRunsTest, AllTokensEqual) {
  const Outcome outcome = Assign(Ids(5000, 7), {Ids(4000, 7)});
  EXPECT_EQ(outcome.matched, 5000);
  ExpectLinear(outcome, 5000);
  EXPECT_LE(outcome.work.measured, 5000);
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

// Whatever a comparison of every pair of places finds to be covered by runs of 8 is taken.
TEST(ExactRunsTest, CoversWhatComparingEveryPairCovers) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Prompts prompts(seed, seed % 2 == 0 ? 12 : 50000);
    const Ids source = prompts.Text(400);
    Ids target;
    while (target.size() < 300) {
      const int64_t tokens = 4 + prompts.Below(40);
      const int64_t begin = prompts.Below(400 - tokens);
      target = Join({target, Slice(source, begin, begin + tokens), prompts.Text(prompts.Below(3))});
    }
    std::vector<bool> covered(target.size());
    for (size_t t = 0; t < target.size(); ++t) {
      for (size_t s = 0; s < source.size(); ++s) {
        size_t run = 0;
        while (t + run < target.size() && s + run < source.size() &&
               target[t + run] == source[s + run]) {
          ++run;
        }
        const bool taken = run >= 8 || (s == 0 && t == 0);  // a common prefix of any length is
        for (size_t i = 0; taken && i < run; ++i) covered[t + i] = true;
      }
    }
    // A run that loses tokens to longer ones may be left with fewer than a run's.
    const int64_t expected = std::count(covered.begin(), covered.end(), true);
    const Outcome outcome = Assign(target, {source});
    EXPECT_LE(outcome.matched, expected) << seed;
    EXPECT_GE(static_cast<double>(outcome.matched), 0.97 * static_cast<double>(expected)) << seed;
  }
}

TEST(ExactRunsTest, ARepeatedPassageKeepsTheOrderOfItsNeighbours) {
  Prompts prompts(8, 50000);
  const Ids boiler = prompts.Text(12);
  const Ids a = prompts.Text(50);
  const Ids b = prompts.Text(50);
  const Ids c = prompts.Text(50);
  const Ids source = Join({boiler, a, prompts.Text(5), boiler, prompts.Text(5), b, boiler, c});
  // Neither neighbour of the passage in the middle is on its diagonal.
  const Ids target = Join({prompts.Text(9), a, prompts.Text(6), boiler, prompts.Text(7), b});
  const Outcome outcome = Assign(target, {source});
  EXPECT_EQ(outcome.rows[9 + 50 + 6].position, 12 + 50 + 5);
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

TEST(ExactRunsTest, OfSeveralSourcesThePassageComesFromWhereItMovesLeast) {
  Prompts prompts(7, 50000);
  const Ids a = prompts.Text(50);
  const Ids b = prompts.Text(60);
  const Ids c = prompts.Text(60);
  const Ids target = Join({prompts.Text(300), a, {1}, b, {2}, c, {3}});
  // The first agrees with the target by chance in one token more.
  const std::vector<Ids> sources = {Join({prompts.Text(10), a, {1}, prompts.Text(7), b}),
                                    Join({prompts.Text(290), a, prompts.Text(9), c})};
  for (const std::vector<Ids>& order : {sources, {sources[1], sources[0]}}) {
    const Outcome outcome = Assign(target, order);
    EXPECT_EQ(outcome.matched, 170);
    EXPECT_EQ(outcome.rows[300].position, 290);
    EXPECT_FALSE(outcome.rows[350].matched());
  }
}

TEST(ExactRunsTest, AFurtherSourceThatIsNearerGivesThePassage) {
  Prompts prompts(9, 50000);
  const Ids a = prompts.Text(100);
  const Ids b = prompts.Text(100);
  const Ids c = prompts.Text(30);
  const Ids target = Join({prompts.Text(300), a, prompts.Text(5), b, prompts.Text(5), c});
  // The second holds `a` in its place and `c` near its own.
  const Ids nearer = Join({prompts.Text(300), a, prompts.Text(109), c});
  const auto assign = [&](const Ids& covering, int max_references) {
    std::vector<TokenRow> rows(target.size());
    const std::vector<SymbolSpan> sources = {covering, nearer};
    AssignExactRuns(target, sources, {.max_references = max_references}, rows);
    return rows;
  };
  // The first covers all of it, in another order.
  const Ids reordered = Join({prompts.Text(10), b, prompts.Text(7), a, prompts.Text(9), c});
  const std::vector<TokenRow> rows = assign(reordered, 4);
  EXPECT_EQ(rows[300].source, 1);
  EXPECT_EQ(rows[300].position, 300);
  EXPECT_EQ(rows[399].position, 399);
  EXPECT_EQ(rows[405].source, 0);
  EXPECT_EQ(rows[510].source, 0);  // too short
  EXPECT_EQ(assign(reordered, 1)[300].source, 0);

  const Ids ordered = Join({prompts.Text(10), a, prompts.Text(7), b, prompts.Text(9), c});
  EXPECT_EQ(assign(ordered, 4)[300].source, 0);
}

TEST(ExactRunsTest, APassageThatContinuesItsNeighbourStaysWithIt) {
  Prompts prompts(10, 50000);
  const Ids a = prompts.Text(100);
  const Ids b = prompts.Text(100);
  const Ids c = prompts.Text(100);
  const Ids target = Join({prompts.Text(300), a, {1}, b, prompts.Text(5), c});
  const std::vector<Ids> sources = {Join({prompts.Text(10), c, prompts.Text(5), a, {2}, b}),
                                    Join({prompts.Text(300), a})};
  const Outcome outcome = Assign(target, sources);
  EXPECT_EQ(outcome.matched, 300);
  EXPECT_EQ(outcome.rows[300].source, 0);
  EXPECT_EQ(outcome.rows[401].source, 0);
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
