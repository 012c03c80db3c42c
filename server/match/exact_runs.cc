#include "server/match/exact_runs.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "server/match/reseat.h"
#include "server/match/seed_table.h"

namespace semshare {
namespace {

// A further source must cover at least this many tokens more, and this share of the target: each
// one costs seams, and tokens recomputed after them.
constexpr int64_t kMinimumGainTokens = 32;
constexpr double kMinimumGainShare = 0.02;

int64_t FurtherGain(int64_t target_tokens) {
  const double share = kMinimumGainShare * static_cast<double>(target_tokens);
  return std::max(kMinimumGainTokens, static_cast<int64_t>(share));
}

// The texts, and the runs found so far.
struct Search {
  SymbolSpan target;
  absl::Span<const SymbolSpan> sources;
  int64_t seed_tokens = 0;
  int64_t min_run_tokens = 0;
  std::vector<Run> runs;
  RunWork work;

  int64_t target_tokens() const { return static_cast<int64_t>(target.size()); }
  SymbolSpan TargetFrom(int64_t at) const { return target.subspan(static_cast<size_t>(at)); }
  SymbolSpan SourceFrom(int source, int64_t at) const {
    return sources[source].subspan(static_cast<size_t>(at));
  }
};

// The maximal run through a place where the texts may agree; its tokens after the place.
int64_t Measure(const Search& search, int64_t target, int source, int64_t position, Run* run) {
  const int64_t forward =
      CommonPrefix(search.TargetFrom(target), search.SourceFrom(source, position));
  if (forward < search.seed_tokens) return forward;  // another seed of the same bucket
  const int64_t backward =
      CommonSuffix(search.target.first(static_cast<size_t>(target)),
                   search.sources[source].first(static_cast<size_t>(position)));
  *run = {target - backward, source, position - backward, backward + forward};
  return forward;
}

// What a pass does with the seeds inside the run that reaches farthest into the source.
enum class InsideRuns {
  kPassOver,  // what they lead to elsewhere is left to the next pass
  kLookUp,    // but for common ones, which would only tell of a text that repeats itself
};

// Maximal runs of one source that seeds of the table lead to. A diagonal's current run is measured
// once: seeds inside it are passed over.
void FindRunsOf(int source, const SeedTable& seeds, InsideRuns inside_runs, Search& search) {
  const int64_t text_tokens = static_cast<int64_t>(search.sources[source].size());
  if (text_tokens < search.seed_tokens) return;
  std::vector<int32_t> measured_to(search.target_tokens() + text_tokens + 1, 0);
  SeedHasher hasher(search.sources[source], search.seed_tokens);
  Run farthest;  // the run that reaches farthest into the source predicts where common seeds go on
  const auto held = [&](uint64_t hash) { return seeds.MayHold(hash); };
  uint64_t hash = 0;
  for (int64_t from = 0; hasher.Seek(from, held, &hash);) {
    const int64_t position = hasher.position();
    from = position + 1;
    const int64_t outside = farthest.position + farthest.tokens - search.seed_tokens + 1;
    if (position < outside && inside_runs == InsideRuns::kPassOver) {
      from = outside;
      continue;
    }
    const int64_t hint = farthest.target + (position - farthest.position);
    const SeedTable::Occurrences found = seeds.Find(hash, hint);
    if (found.common && position < outside) continue;
    for (const int32_t target : found.positions) {
      ++search.work.occurrences;
      int32_t& measured = measured_to[position - target + search.target_tokens()];
      if (measured > position) continue;
      ++search.work.measured;
      Run run;
      const int64_t forward = Measure(search, target, source, position, &run);
      if (forward < search.seed_tokens) continue;
      measured = static_cast<int32_t>(position + forward);
      if (run.tokens >= search.min_run_tokens) search.runs.push_back(run);
      if (position + forward >= farthest.position + farthest.tokens) farthest = run;
    }
  }
}

void FindRuns(std::vector<int32_t> positions, InsideRuns inside_runs, Search& search) {
  if (positions.empty()) return;
  const SeedTable seeds(search.target, std::move(positions), search.seed_tokens);
  for (int source = 0; source < static_cast<int>(search.sources.size()); ++source) {
    FindRunsOf(source, seeds, inside_runs, search);
  }
}

// The common prefix of the target and each source.
std::vector<int64_t> CommonPrefixes(const Search& search) {
  std::vector<int64_t> prefixes;
  for (const SymbolSpan source : search.sources) {
    prefixes.push_back(CommonPrefix(search.target, source));
  }
  return prefixes;
}

// A set of target tokens, one bit each.
class TokenSet {
 public:
  explicit TokenSet(int64_t tokens) : words_((tokens + 63) / 64) {}

  bool Has(int64_t token) const { return ((words_[token / 64] >> (token % 64)) & 1) != 0; }

  void Add(int64_t begin, int64_t end) {
    for (int64_t w = begin / 64; w * 64 < end; ++w) {
      uint64_t bits = ~uint64_t{0};
      if (w == begin / 64) bits &= ~uint64_t{0} << (begin % 64);
      if (end < (w + 1) * 64) bits &= ~(~uint64_t{0} << (end % 64));
      words_[w] |= bits;
    }
  }

  void Add(const TokenSet& other) {
    for (size_t w = 0; w < words_.size(); ++w) words_[w] |= other.words_[w];
  }

  // Tokens that are not in `covered`.
  int64_t CountNew(const TokenSet& covered) const {
    int64_t count = 0;
    for (size_t w = 0; w < words_.size(); ++w)
      count += std::popcount(words_[w] & ~covered.words_[w]);
    return count;
  }

 private:
  std::vector<uint64_t> words_;
};

// Which target tokens the runs of each source cover.
std::vector<TokenSet> CoverageBySource(const Search& search) {
  std::vector<TokenSet> coverage(search.sources.size(), TokenSet(search.target_tokens()));
  for (const Run& run : search.runs) coverage[run.source].Add(run.target, run.target_end());
  return coverage;
}

struct Choice {
  std::vector<int> sources;  // to use, best first
  TokenSet covered;          // by their runs
};

// Each next source adds the most covered tokens. Tokens of a common prefix count twice, because
// their rows are exact.
Choice ChooseSources(const Search& search, const std::vector<int64_t>& prefixes,
                     const RunOptions& options) {
  const int64_t further_gain = FurtherGain(search.target_tokens());
  const std::vector<TokenSet> coverage = CoverageBySource(search);
  std::vector<bool> used(coverage.size());
  Choice choice{{}, TokenSet(search.target_tokens())};
  int64_t prefix = 0;
  while (static_cast<int>(choice.sources.size()) < std::max(1, options.max_references)) {
    int best = -1;
    int64_t best_gain = 0;
    for (int source = 0; source < static_cast<int>(coverage.size()); ++source) {
      if (used[source]) continue;
      const int64_t gain = coverage[source].CountNew(choice.covered) +
                           std::max<int64_t>(0, prefixes[source] - prefix);
      if (gain > best_gain) {
        best = source;
        best_gain = gain;
      }
    }
    const int64_t least = choice.sources.empty() ? search.min_run_tokens : further_gain;
    if (best < 0 || best_gain < least) break;
    choice.sources.push_back(best);
    used[best] = true;
    prefix = std::max(prefix, prefixes[best]);
    choice.covered.Add(coverage[best]);
  }
  return choice;
}

// Seeds for the first pass.
std::vector<int32_t> SparseSeeds(const Search& search) {
  std::vector<int32_t> positions;
  for (int64_t t = 0; t + search.seed_tokens <= search.target_tokens(); t += kSeedStride) {
    positions.push_back(static_cast<int32_t>(t));
  }
  return positions;
}

// Seeds that hold a token which is not covered.
std::vector<int32_t> OpenSeeds(const Search& search, const TokenSet& covered) {
  std::vector<int32_t> positions;
  int64_t open_until = 0;  // seeds that begin below hold an open token
  int64_t next = 0;
  for (int64_t t = 0; t + search.seed_tokens <= search.target_tokens(); ++t) {
    for (; next < t + search.seed_tokens; ++next) {
      if (!covered.Has(next)) open_until = next + 1;
    }
    if (t < open_until) positions.push_back(static_cast<int32_t>(t));
  }
  return positions;
}

// The target's rows while runs are being taken, with the nearest free token on either side of any
// place in almost constant time (path halving over taken tokens).
class FreeRows {
 public:
  explicit FreeRows(std::vector<TokenRow>& rows)
      : rows_(rows), next_(rows.size() + 1), previous_(rows.size() + 1) {
    std::iota(next_.begin(), next_.end(), 0);
    std::iota(previous_.begin(), previous_.end(), 0);
  }

  // The first free token at or after `target`; the number of tokens if there is none.
  int64_t Next(int64_t target) { return Find(next_, target); }
  // One past the last free token before `end`; 0 if there is none.
  int64_t PreviousEnd(int64_t end) { return Find(previous_, end); }

  // Gives the run's tokens its rows, up to the first that is taken.
  void Take(const Run& run) {
    for (int64_t i = 0; i < run.tokens && !rows_[run.target + i].matched(); ++i) {
      const int64_t target = run.target + i;
      rows_[target] = {run.source, SegmentKind::kExact, run.position + i};
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

  std::vector<TokenRow>& rows_;
  std::vector<int32_t> next_;
  std::vector<int32_t> previous_;
};

// Queues of runs by length, each first in, first out: lists through one array of links.
class RunQueues {
 public:
  explicit RunQueues(int64_t longest) : first_(longest + 1, -1), last_(longest + 1, -1) {}

  void Push(const Run& run) {
    const auto index = static_cast<int32_t>(runs_.size());
    runs_.push_back(run);
    next_.push_back(-1);
    int32_t& last = last_[run.tokens];
    (last < 0 ? first_[run.tokens] : next_[last]) = index;
    last = index;
  }

  // False if there is none of this length.
  bool Pop(int64_t tokens, Run* run) {
    const int32_t index = first_[tokens];
    if (index < 0) return false;
    *run = runs_[index];
    first_[tokens] = next_[index];
    if (first_[tokens] < 0) last_[tokens] = -1;
    return true;
  }

 private:
  std::vector<Run> runs_;
  std::vector<int32_t> next_;
  std::vector<int32_t> first_;
  std::vector<int32_t> last_;
};

// Takes runs longest first; equal ones in the order of the chosen sources, then of the source. A
// run that lost tokens to longer ones comes back with what is left, which is one piece: whatever
// was taken before is at least as long, so it can not lie strictly inside.
void TakeLongestFirst(const std::vector<int>& chosen, Search& search, FreeRows& free) {
  RunQueues queues(search.target_tokens());
  for (const int source : chosen) {
    for (const Run& run : search.runs) {
      if (run.source == source) queues.Push(run);
    }
  }
  for (int64_t length = search.target_tokens(); length >= search.min_run_tokens; --length) {
    for (Run run; queues.Pop(length, &run);) {
      ++search.work.taken;
      const int64_t begin = free.Next(run.target);
      const int64_t end = free.PreviousEnd(run.target_end());
      if (end - begin < search.min_run_tokens) continue;
      run = {begin, run.source, run.position + (begin - run.target), end - begin};
      if (run.tokens == length) {
        free.Take(run);
      } else {
        queues.Push(run);
      }
    }
  }
}

}  // namespace

RunWork AssignExactRuns(SymbolSpan target, absl::Span<const SymbolSpan> sources,
                        const RunOptions& options, std::vector<TokenRow>& rows) {
  // Long seeds are rarer, but a run must hold a whole one.
  constexpr int64_t kSeedTokens = 8;
  const int64_t min_run_tokens = std::max<int64_t>(1, options.min_run_tokens);
  Search search{target, sources, std::min(kSeedTokens, min_run_tokens), min_run_tokens, {}, {}};
  if (sources.empty()) return search.work;
  const std::vector<int64_t> prefixes = CommonPrefixes(search);
  FindRuns(SparseSeeds(search), InsideRuns::kPassOver, search);
  FindRuns(OpenSeeds(search, ChooseSources(search, prefixes, options).covered), InsideRuns::kLookUp,
           search);
  const std::vector<int> chosen = ChooseSources(search, prefixes, options).sources;
  if (chosen.empty()) return search.work;
  const int prefix_source = *std::max_element(
      chosen.begin(), chosen.end(), [&](int a, int b) { return prefixes[a] < prefixes[b]; });
  const int64_t prefix = prefixes[prefix_source];

  FreeRows free(rows);
  free.Take({0, prefix_source, 0, prefix});
  TakeLongestFirst(chosen, search, free);
  const Texts texts{target, sources};
  KeepTogether(texts, search.runs, chosen, prefix, rows);
  const Further further{options.max_references, FurtherGain(search.target_tokens())};
  MoveNearer(texts, search.runs, further, prefix, chosen, rows);
  return search.work;
}

}  // namespace semshare
