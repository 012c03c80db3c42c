#include "server/match/token_fill.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

namespace semshare {
namespace {

// Unmatched target tokens [begin, end) that may take rows of `source` in [source_begin,
// source_end). An offset is source position - target position, as the run on that side has it.
struct Region {
  int64_t begin = 0;
  int64_t end = 0;
  int source = 0;
  int64_t source_begin = 0;
  int64_t source_end = 0;
  std::optional<int64_t> left_offset;
  std::optional<int64_t> right_offset;
};

// The regions of one gap; none where the neighbours leave no room.
void AddRegions(int64_t begin, int64_t end, absl::Span<const int64_t> source_tokens, int64_t window,
                const std::vector<TokenRow>& rows, std::vector<Region>& regions) {
  const TokenRow* left = begin > 0 ? &rows[begin - 1] : nullptr;
  const TokenRow* right = end < static_cast<int64_t>(rows.size()) ? &rows[end] : nullptr;
  if (left != nullptr && right != nullptr && left->source == right->source &&
      left->position < right->position) {
    regions.push_back({begin, end, left->source, left->position + 1, right->position,
                       left->position - (begin - 1), right->position - end});
    return;
  }
  // Each half follows the run beside it; a gap at an end of the prompt has one such run only.
  int64_t middle = begin + (end - begin + 1) / 2;
  if (left == nullptr) middle = begin;
  if (right == nullptr) middle = end;
  if (left != nullptr && begin < middle) {
    const int64_t first = left->position + 1;
    const int64_t last = std::min(source_tokens[left->source], first + (middle - begin) + window);
    regions.push_back({begin, middle, left->source, first, last, left->position - (begin - 1), {}});
  }
  if (right != nullptr && middle < end) {
    const int64_t first = std::max<int64_t>(0, right->position - (end - middle) - window);
    regions.push_back(
        {middle, end, right->source, first, right->position, {}, right->position - end});
  }
}

std::vector<Region> FindRegions(absl::Span<const int64_t> source_tokens, int64_t window,
                                const std::vector<TokenRow>& rows) {
  std::vector<Region> regions;
  const int64_t tokens = static_cast<int64_t>(rows.size());
  for (int64_t begin = 0; begin < tokens;) {
    if (rows[begin].matched()) {
      ++begin;
      continue;
    }
    int64_t end = begin;
    while (end < tokens && !rows[end].matched()) ++end;
    if (end - begin < tokens) AddRegions(begin, end, source_tokens, window, rows, regions);
    begin = end;
  }
  return regions;
}

// A target token and a place it may take.
struct Pair {
  int64_t target = 0;
  int64_t position = 0;
  int64_t distance = 0;  // from the nearer predicted place
  // The best chain that ends here.
  int64_t score = 0;
  int64_t previous = -1;  // index of the pair before; -1: none
};

// The nearest equal places of one token, ascending by position.
void AddPairs(const Region& region, int64_t target, uint32_t symbol,
              absl::Span<const uint32_t> source, int64_t window, std::vector<Pair>& pairs) {
  const size_t first = pairs.size();
  int64_t scanned_to = region.source_begin;
  const auto scan = [&](int64_t predicted) {
    const int64_t begin = std::max(scanned_to, predicted - window);
    const int64_t end = std::min(region.source_end, predicted + window + 1);
    for (int64_t position = begin; position < end; ++position) {
      if (source[position] != symbol) continue;
      int64_t distance = window;
      for (const std::optional<int64_t>& offset : {region.left_offset, region.right_offset}) {
        if (offset) distance = std::min(distance, std::abs(position - (target + *offset)));
      }
      pairs.push_back({target, position, distance});
    }
    scanned_to = std::max(scanned_to, end);
  };
  int64_t low = target + region.left_offset.value_or(region.right_offset.value_or(0));
  int64_t high = target + region.right_offset.value_or(region.left_offset.value_or(0));
  if (low > high) std::swap(low, high);
  scan(low);
  scan(high);
  if (pairs.size() - first <= kMaxFillPlaces) return;
  const auto begin = pairs.begin() + static_cast<int64_t>(first);
  std::nth_element(begin, begin + kMaxFillPlaces, pairs.end(), [](const Pair& a, const Pair& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.position < b.position;
  });
  pairs.resize(first + kMaxFillPlaces);
  std::sort(pairs.begin() + static_cast<int64_t>(first), pairs.end(),
            [](const Pair& a, const Pair& b) { return a.position < b.position; });
}

// Best chain ending at a position below a bound: a Fenwick tree of prefix maxima over the ranks of
// the positions.
class BestBelow {
 public:
  explicit BestBelow(const std::vector<Pair>& pairs) {
    for (const Pair& pair : pairs) positions_.push_back(pair.position);
    std::sort(positions_.begin(), positions_.end());
    positions_.erase(std::unique(positions_.begin(), positions_.end()), positions_.end());
    tree_.assign(positions_.size() + 1, -1);
  }

  int64_t Find(int64_t position, const std::vector<Pair>& pairs) const {
    int64_t best = -1;
    for (size_t i = Rank(position); i > 0; i &= i - 1) {
      if (tree_[i] >= 0 && (best < 0 || pairs[tree_[i]].score > pairs[best].score)) best = tree_[i];
    }
    return best;
  }

  void Add(int64_t index, const std::vector<Pair>& pairs) {
    for (size_t i = Rank(pairs[index].position) + 1; i < tree_.size(); i += i & (~i + 1)) {
      if (tree_[i] < 0 || pairs[index].score > pairs[tree_[i]].score) tree_[i] = index;
    }
  }

 private:
  // Positions below `position`.
  size_t Rank(int64_t position) const {
    return std::lower_bound(positions_.begin(), positions_.end(), position) - positions_.begin();
  }

  std::vector<int64_t> positions_;
  std::vector<int64_t> tree_;
};

// Scores every pair by the best ascending chain that ends in it. More tokens win, then chains
// without breaks (a seam costs fidelity), then nearness to the predicted place.
void ScoreChains(int64_t window, std::vector<Pair>& pairs) {
  const int64_t match = 2 * window + 1;  // two far tokens beat one near token
  const int64_t contiguous = window;
  BestBelow below(pairs);
  size_t previous_begin = 0;  // pairs of the target token before
  size_t previous_end = 0;
  for (size_t begin = 0; begin < pairs.size();) {
    const int64_t target = pairs[begin].target;
    size_t end = begin;
    while (end < pairs.size() && pairs[end].target == target) ++end;
    const bool adjacent = previous_end > 0 && pairs[previous_begin].target + 1 == target;
    for (size_t i = begin; i < end; ++i) {
      Pair& pair = pairs[i];
      const int64_t own = match - pair.distance;
      pair.previous = below.Find(pair.position, pairs);
      pair.score = own + (pair.previous >= 0 ? pairs[pair.previous].score : 0);
      if (!adjacent) continue;
      for (size_t p = previous_begin; p < previous_end; ++p) {
        const int64_t score = pairs[p].score + own + contiguous;
        if (pairs[p].position + 1 == pair.position && score > pair.score) {
          pair.previous = static_cast<int64_t>(p);
          pair.score = score;
        }
      }
    }
    for (size_t i = begin; i < end; ++i) below.Add(static_cast<int64_t>(i), pairs);
    previous_begin = begin;
    previous_end = end;
    begin = end;
  }
}

void FillRegion(const Region& region, absl::Span<const uint32_t> target,
                absl::Span<const uint32_t> source, const AlignOptions& options,
                std::vector<TokenRow>& rows) {
  std::vector<Pair> pairs;
  for (int64_t t = region.begin; t < region.end; ++t) {
    AddPairs(region, t, target[t], source, options.fill_window_tokens, pairs);
  }
  if (pairs.empty()) return;
  ScoreChains(options.fill_window_tokens, pairs);
  int64_t at = std::max_element(pairs.begin(), pairs.end(),
                                [](const Pair& a, const Pair& b) { return a.score < b.score; }) -
               pairs.begin();
  // Walk the chain back, one contiguous fill after the other; short fills are dropped.
  while (at >= 0) {
    const Pair& last = pairs[at];
    int64_t tokens = 1;
    int64_t before = last.previous;
    while (before >= 0 && pairs[before].target == last.target - tokens &&
           pairs[before].position == last.position - tokens) {
      ++tokens;
      before = pairs[before].previous;
    }
    if (tokens >= options.min_fill_tokens) {
      for (int64_t i = 0; i < tokens; ++i) {
        rows[last.target - i] = {region.source, SegmentKind::kToken, last.position - i};
      }
    }
    at = before;
  }
}

}  // namespace

void FillTokens(SymbolSpan target, absl::Span<const SymbolSpan> sources,
                const AlignOptions& options, std::vector<TokenRow>& rows) {
  std::vector<int64_t> source_tokens;
  for (const SymbolSpan source : sources) {
    source_tokens.push_back(static_cast<int64_t>(source.size()));
  }
  for (const Region& region : FindRegions(source_tokens, options.fill_window_tokens, rows)) {
    FillRegion(region, target, sources[region.source], options, rows);
  }
}

void FillFuzzy(absl::Span<const int64_t> source_tokens, const FuzzyBlocks& blocks,
               const AlignOptions& options, const FuzzyMatcher& fuzzy,
               std::vector<TokenRow>& rows) {
  std::vector<std::vector<bool>> taken = blocks.sources;
  taken.resize(source_tokens.size());
  for (size_t i = 0; i < taken.size(); ++i) taken[i].resize(source_tokens[i]);
  for (const TokenRow& row : rows) {
    if (row.matched()) taken[row.source][row.position] = true;
  }
  const int64_t window = options.fuzzy_window_tokens;
  std::vector<FuzzyQuery> queries;
  for (const Region& region : FindRegions(source_tokens, window, rows)) {
    for (int64_t t = region.begin; t < region.end; ++t) {
      if (!blocks.target.empty() && blocks.target[t]) continue;
      const bool by_left =
          !region.right_offset || (region.left_offset && t - region.begin < region.end - t);
      const int64_t predicted = t + (by_left ? *region.left_offset : *region.right_offset);
      const int64_t begin = std::max(region.source_begin, predicted - window);
      const int64_t end = std::min(region.source_end, predicted + window + 1);
      if (begin < end) queries.push_back({t, region.source, predicted, begin, end});
    }
  }
  if (queries.empty()) return;
  const std::vector<int64_t> answers = fuzzy(queries);
  for (size_t i = 0; i < std::min(queries.size(), answers.size()); ++i) {
    const FuzzyQuery& query = queries[i];
    if (answers[i] < query.source_begin || answers[i] >= query.source_end) continue;
    if (taken[query.reference][answers[i]]) continue;
    taken[query.reference][answers[i]] = true;
    rows[query.target] = {query.reference, SegmentKind::kFuzzy, answers[i]};
  }
}

}  // namespace semshare
