#include "server/match/exact_runs.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "server/match/seed_table.h"

namespace semshare {
namespace {

// A further source must cover at least this many tokens more, and this share of the target: each
// one costs seams, and tokens recomputed after them.
constexpr int64_t kMinimumGainTokens = 32;
constexpr double kMinimumGainShare = 0.02;

struct Run {
  int64_t target = 0;
  int64_t place = 0;  // in the seed table's text
  int64_t tokens = 0;
};

// Every maximal run that some seed leads to. A diagonal's current run is measured once: seeds
// inside it are passed over.
std::vector<Run> FindRuns(const SeedTable& table, int64_t min_run_tokens, RunWork& work) {
  const int64_t target_tokens = table.target_tokens();
  std::vector<int32_t> measured_to(target_tokens + table.text_tokens() + 1, 0);
  std::vector<Run> runs;
  Run farthest;  // the run that reaches farthest into the target predicts where common seeds go on
  for (int64_t target = 0; target < target_tokens; ++target) {
    const int64_t hint = farthest.place + (target - farthest.target);
    for (const int32_t place : table.Occurrences(target, hint)) {
      ++work.occurrences;
      int32_t& measured = measured_to[place - target + target_tokens];
      if (measured > target) continue;
      ++work.measured;
      const int64_t forward = table.Forward(target, place);
      if (forward < table.seed_tokens()) continue;  // another seed of the same bucket
      const int64_t backward = table.Backward(target, place);
      measured = static_cast<int32_t>(target + forward);
      const Run run{target - backward, place - backward, backward + forward};
      if (run.tokens >= min_run_tokens) runs.push_back(run);
      if (target + forward >= farthest.target + farthest.tokens) farthest = run;
    }
  }
  return runs;
}

// The common prefix of the target and each source.
std::vector<int64_t> CommonPrefixes(const SeedTable& table) {
  std::vector<int64_t> prefixes;
  for (int source = 0; source < table.sources(); ++source) {
    const int64_t size = table.End(source) - table.Begin(source);
    prefixes.push_back(
        table.Verified(0, table.Begin(source), std::min(size, table.target_tokens())));
  }
  return prefixes;
}

// A set of target tokens, one bit each.
using TokenSet = std::vector<uint64_t>;

// Tokens of `set` that are not in `covered`.
int64_t CountNew(const TokenSet& set, const TokenSet& covered) {
  int64_t count = 0;
  for (size_t w = 0; w < set.size(); ++w) count += std::popcount(set[w] & ~covered[w]);
  return count;
}

// Which target tokens the runs of each source cover.
std::vector<TokenSet> CoverageBySource(const SeedTable& table, const std::vector<Run>& runs) {
  const int64_t tokens = table.target_tokens();
  std::vector<std::vector<int32_t>> edges(table.sources(), std::vector<int32_t>(tokens + 1, 0));
  for (const Run& run : runs) {
    std::vector<int32_t>& edge = edges[table.SourceOf(run.place)];
    ++edge[run.target];
    --edge[run.target + run.tokens];
  }
  std::vector<TokenSet> covered(table.sources(), TokenSet((tokens + 63) / 64));
  for (int source = 0; source < table.sources(); ++source) {
    int32_t depth = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      depth += edges[source][t];
      covered[source][t / 64] |= static_cast<uint64_t>(depth > 0) << (t % 64);
    }
  }
  return covered;
}

// The sources to use, best first: each next one adds the most covered tokens. Tokens of a common
// prefix count twice, because their rows are exact.
std::vector<int> ChooseSources(const SeedTable& table, const std::vector<Run>& runs,
                               const std::vector<int64_t>& prefixes, const RunOptions& options) {
  const int64_t further_gain = std::max(
      kMinimumGainTokens,
      static_cast<int64_t>(kMinimumGainShare * static_cast<double>(table.target_tokens())));
  const std::vector<TokenSet> coverage = CoverageBySource(table, runs);
  TokenSet covered((table.target_tokens() + 63) / 64);
  std::vector<bool> used(table.sources());
  std::vector<int> chosen;
  int64_t prefix = 0;
  while (static_cast<int>(chosen.size()) < std::max(1, options.max_references)) {
    int best = -1;
    int64_t best_gain = 0;
    for (int source = 0; source < table.sources(); ++source) {
      if (used[source]) continue;
      const int64_t gain =
          CountNew(coverage[source], covered) + std::max<int64_t>(0, prefixes[source] - prefix);
      if (gain > best_gain) {
        best = source;
        best_gain = gain;
      }
    }
    if (best < 0 || best_gain < (chosen.empty() ? options.min_run_tokens : further_gain)) break;
    chosen.push_back(best);
    used[best] = true;
    prefix = std::max(prefix, prefixes[best]);
    for (size_t w = 0; w < covered.size(); ++w) covered[w] |= coverage[best][w];
  }
  return chosen;
}

// The target's rows while runs are being taken, with the nearest free token on either side of any
// place in almost constant time (path halving over taken tokens).
class FreeRows {
 public:
  FreeRows(const SeedTable& table, std::vector<TokenRow>& rows)
      : table_(table), rows_(rows), next_(rows.size() + 1), previous_(rows.size() + 1) {
    std::iota(next_.begin(), next_.end(), 0);
    std::iota(previous_.begin(), previous_.end(), 0);
  }

  // The first free token at or after `target`; the number of tokens if there is none.
  int64_t Next(int64_t target) { return Find(next_, target); }
  // One past the last free token before `end`; 0 if there is none.
  int64_t PreviousEnd(int64_t end) { return Find(previous_, end); }

  // Gives the run's tokens its rows, as far as they are free and the symbols are proven equal.
  void Take(const Run& run) {
    const int source = table_.SourceOf(run.place);
    const int64_t tokens = table_.Verified(run.target, run.place, run.tokens);
    for (int64_t i = 0; i < tokens && !rows_[run.target + i].matched(); ++i) {
      const int64_t target = run.target + i;
      rows_[target] = {source, SegmentKind::kExact, run.place + i - table_.Begin(source)};
      next_[target] = static_cast<int32_t>(target + 1);
      previous_[target + 1] = static_cast<int32_t>(target);
    }
  }

 private:
  static int64_t Find(std::vector<int32_t>& parent, int64_t at) {
    while (parent[at] != at) {
      parent[at] = parent[parent[at]];
      at = parent[at];
    }
    return at;
  }

  const SeedTable& table_;
  std::vector<TokenRow>& rows_;
  std::vector<int32_t> next_;
  std::vector<int32_t> previous_;
};

// Takes runs longest first; equal ones in the order of the chosen sources, then of the target. A
// run that lost tokens to longer ones comes back with what is left, which is one piece: whatever
// was taken before is at least as long, so it can not lie strictly inside.
void TakeLongestFirst(const std::vector<Run>& runs, const std::vector<int>& chosen,
                      const SeedTable& table, int64_t min_run_tokens, FreeRows& free,
                      RunWork& work) {
  std::vector<std::vector<Run>> by_length(table.target_tokens() + 1);
  for (const int source : chosen) {
    for (const Run& run : runs) {
      if (table.SourceOf(run.place) == source) by_length[run.tokens].push_back(run);
    }
  }
  for (int64_t length = table.target_tokens(); length >= min_run_tokens; --length) {
    for (size_t i = 0; i < by_length[length].size(); ++i) {
      ++work.taken;
      Run run = by_length[length][i];
      const int64_t begin = free.Next(run.target);
      const int64_t end = free.PreviousEnd(run.target + run.tokens);
      if (end - begin < min_run_tokens) continue;
      run = {begin, run.place + (begin - run.target), end - begin};
      if (run.tokens == length) {
        free.Take(run);
      } else {
        by_length[run.tokens].push_back(run);
      }
    }
  }
}

// A stretch of rows that continue each other, and the matched rows beside it.
struct Stretch {
  int64_t begin = 0;
  int64_t end = 0;
};

std::vector<Stretch> Stretches(const std::vector<TokenRow>& rows) {
  std::vector<Stretch> stretches;
  for (int64_t t = 0; t < static_cast<int64_t>(rows.size()); ++t) {
    if (!rows[t].matched()) continue;
    if (t > 0 && rows[t - 1].ContinuedBy(rows[t])) {
      stretches.back().end = t + 1;
    } else {
      stretches.push_back({t, t + 1});
    }
  }
  return stretches;
}

// How well rows of `source` from `position` on sit between the neighbours: on the same diagonal
// best, then in the same order.
int FitScore(const Run& run, int source, int64_t position, const Stretch* left,
             const Stretch* right, const std::vector<TokenRow>& rows) {
  int score = 0;
  if (left != nullptr) {
    const TokenRow& row = rows[left->end - 1];
    if (row.source == source) {
      const int64_t step = position - row.position;
      score += (step > 0) + 2 * (step == run.target - (left->end - 1));
    }
  }
  if (right != nullptr) {
    const TokenRow& row = rows[right->begin];
    if (row.source == source) {
      const int64_t step = row.position - position;
      score += (step >= run.tokens) + 2 * (step == right->begin - run.target);
    }
  }
  return score;
}

// Looks for an equal run elsewhere that sits better between the neighbours, so that repeated
// passages keep order and continuity.
void Reseat(const Stretch& stretch, const Stretch* left, const Stretch* right,
            const SeedTable& table, const std::vector<bool>& usable, std::vector<TokenRow>& rows) {
  const TokenRow first = rows[stretch.begin];
  Run run{stretch.begin, table.Begin(first.source) + first.position, stretch.end - stretch.begin};
  int best = FitScore(run, first.source, first.position, left, right, rows);
  const auto consider = [&](int64_t place) {
    if (place < 0 || place >= table.text_tokens()) return;
    const int source = table.SourceOf(place);
    if (!usable[source]) return;
    const int score = FitScore(run, source, place - table.Begin(source), left, right, rows);
    if (score <= best || table.End(source) - place < run.tokens) return;
    if (table.Forward(run.target, place) < run.tokens) return;
    if (table.Verified(run.target, place, run.tokens) < run.tokens) return;
    best = score;
    run.place = place;
  };
  int64_t hint = run.place;
  if (left != nullptr) {
    const TokenRow& row = rows[left->end - 1];
    hint = table.Begin(row.source) + row.position + (run.target - (left->end - 1));
    consider(hint);
  }
  if (right != nullptr) {
    const TokenRow& row = rows[right->begin];
    consider(table.Begin(row.source) + row.position - (right->begin - run.target));
  }
  for (const int32_t place : table.Occurrences(run.target, hint)) consider(place);
  const int source = table.SourceOf(run.place);
  for (int64_t i = 0; i < run.tokens; ++i) {
    rows[run.target + i] = {source, SegmentKind::kExact, run.place + i - table.Begin(source)};
  }
}

void ReseatAll(const SeedTable& table, const std::vector<int>& chosen, int64_t prefix,
               std::vector<TokenRow>& rows) {
  std::vector<bool> usable(table.sources());
  for (const int source : chosen) usable[source] = true;
  const std::vector<Stretch> stretches = Stretches(rows);
  for (size_t i = 0; i < stretches.size(); ++i) {
    if (stretches[i].begin < prefix) continue;  // exact where it is
    Reseat(stretches[i], i > 0 ? &stretches[i - 1] : nullptr,
           i + 1 < stretches.size() ? &stretches[i + 1] : nullptr, table, usable, rows);
  }
}

}  // namespace

RunWork AssignExactRuns(absl::Span<const uint32_t> target,
                        absl::Span<const std::vector<uint32_t>> sources, const RunOptions& options,
                        std::vector<TokenRow>& rows) {
  // Long seeds are rarer, but a run must hold a whole one.
  constexpr int64_t kSeedTokens = 8;
  RunWork work;
  if (target.empty() || sources.empty()) return work;
  const int64_t min_run_tokens = std::max<int64_t>(1, options.min_run_tokens);
  const SeedTable table(target, sources, std::min(kSeedTokens, min_run_tokens));
  const std::vector<Run> runs = FindRuns(table, min_run_tokens, work);
  const std::vector<int64_t> prefixes = CommonPrefixes(table);
  const std::vector<int> chosen = ChooseSources(table, runs, prefixes, options);
  if (chosen.empty()) return work;
  const int prefix_source = *std::max_element(
      chosen.begin(), chosen.end(), [&](int a, int b) { return prefixes[a] < prefixes[b]; });
  const int64_t prefix = prefixes[prefix_source];

  FreeRows free(table, rows);
  free.Take({0, table.Begin(prefix_source), prefix});
  TakeLongestFirst(runs, chosen, table, min_run_tokens, free, work);
  ReseatAll(table, chosen, prefix, rows);
  return work;
}

}  // namespace semshare
