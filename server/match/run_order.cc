#include "server/match/run_order.h"

#include <algorithm>

namespace semshare {
namespace {

// The most tokens in runs whose positions ascend within one source: a longest ascending chain by
// weight, with a Fenwick tree of prefix maxima over the runs in source order.
int64_t OrderedTokens(const std::vector<Run>& runs, int source) {
  std::vector<size_t> by_source;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].source == source) by_source.push_back(i);
  }
  std::stable_sort(by_source.begin(), by_source.end(),
                   [&](size_t a, size_t b) { return runs[a].position < runs[b].position; });
  std::vector<size_t> rank(runs.size());
  for (size_t r = 0; r < by_source.size(); ++r) rank[by_source[r]] = r + 1;
  std::vector<int64_t> best(by_source.size() + 1, 0);
  int64_t longest = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].source != source) continue;
    int64_t tokens = 0;
    for (size_t at = rank[i] - 1; at > 0; at &= at - 1) tokens = std::max(tokens, best[at]);
    tokens += runs[i].tokens;
    longest = std::max(longest, tokens);
    for (size_t at = rank[i]; at < best.size(); at += at & (~at + 1)) {
      best[at] = std::max(best[at], tokens);
    }
  }
  return longest;
}

}  // namespace

bool IsReordered(std::vector<Run> runs) {
  std::erase_if(runs, [](const Run& run) { return run.tokens < kPassageTokens; });
  int64_t matched = 0;
  int sources = 0;
  for (const Run& run : runs) {
    matched += run.tokens;
    sources = std::max(sources, run.source + 1);
  }
  int64_t ordered = 0;
  for (int source = 0; source < sources; ++source) {
    ordered = std::max(ordered, OrderedTokens(runs, source));
  }
  return static_cast<double>(matched - ordered) > kReorderedShare * static_cast<double>(matched);
}

}  // namespace semshare
