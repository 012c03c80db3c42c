#include "server/match/aligner.h"

#include <algorithm>
#include <deque>
#include <string>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "server/match/exact_runs.h"
#include "server/match/seed_table.h"
#include "server/match/token_fill.h"

namespace semshare {
namespace {

// A token as the aligner compares it: its id, or for a tagged one a number that stands for the id,
// the tag's digest and length, and the place within the tag.
class SymbolTable {
 public:
  explicit SymbolTable(bool tagged) : tagged_(tagged) {}

  // Of the first `tokens` tokens. The prompt and the table keep them.
  SymbolSpan Symbols(const PromptView& prompt, int64_t tokens) {
    const absl::Span<const uint32_t> ids = prompt.ids.first(tokens);
    if (!tagged_) return ids;
    std::vector<uint32_t>& symbols = symbols_.emplace_back(tokens);
    // With tags anywhere, all tokens are numbered together, so that no id can equal a number.
    std::vector<std::pair<uint64_t, int64_t>> places(tokens, {0, 0});
    for (const ContentTag& tag : prompt.tags) {
      const auto next = static_cast<uint64_t>(tags_.size()) + 1;
      const uint64_t name =
          tags_.try_emplace({tag.digest, tag.end - tag.begin}, next).first->second;
      for (int64_t t = std::max<int64_t>(0, tag.begin); t < std::min(tokens, tag.end); ++t) {
        places[t] = {name, t - tag.begin};
      }
    }
    for (int64_t t = 0; t < tokens; ++t) {
      const auto next = static_cast<uint32_t>(numbers_.size());
      symbols[t] =
          numbers_.try_emplace({ids[t], places[t].first, places[t].second}, next).first->second;
    }
    return symbols;
  }

 private:
  const bool tagged_;
  std::deque<std::vector<uint32_t>> symbols_;
  absl::flat_hash_map<std::pair<std::string, int64_t>, uint64_t> tags_;
  absl::flat_hash_map<std::tuple<uint32_t, uint64_t, int64_t>, uint32_t> numbers_;
};

std::vector<bool> Tagged(const PromptView& prompt) {
  std::vector<bool> tagged(prompt.ids.size());
  for (const ContentTag& tag : prompt.tags) {
    const int64_t end = std::min<int64_t>(static_cast<int64_t>(tagged.size()), tag.end);
    for (int64_t t = std::max<int64_t>(0, tag.begin); t < end; ++t) tagged[t] = true;
  }
  return tagged;
}

void AssignPrefix(SymbolSpan target, absl::Span<const SymbolSpan> sources,
                  std::vector<TokenRow>& rows) {
  int best = -1;
  int64_t best_tokens = 0;
  for (size_t i = 0; i < sources.size(); ++i) {
    const int64_t tokens = CommonPrefix(target, sources[i]);
    if (tokens > best_tokens) {
      best = static_cast<int>(i);
      best_tokens = tokens;
    }
  }
  for (int64_t t = 0; t < best_tokens; ++t) rows[t] = {best, SegmentKind::kExact, t};
}

std::vector<Segment> MakeSegments(const std::vector<TokenRow>& rows) {
  std::vector<Segment> segments;
  for (int64_t t = 0; t < static_cast<int64_t>(rows.size()); ++t) {
    const TokenRow& row = rows[t];
    if (!row.matched()) continue;
    if (t > 0 && rows[t - 1].ContinuedBy(row) && rows[t - 1].kind == row.kind) {
      ++segments.back().tokens;
    } else {
      segments.push_back({t, row.source, row.position, 1, row.kind});
    }
  }
  return segments;
}

// Keeps the longest segments, in their order; of equal ones the first.
void KeepLongest(int64_t max_segments, std::vector<Segment>& segments) {
  if (static_cast<int64_t>(segments.size()) <= max_segments) return;
  std::stable_sort(segments.begin(), segments.end(),
                   [](const Segment& a, const Segment& b) { return a.tokens > b.tokens; });
  segments.resize(std::max<int64_t>(0, max_segments));
  std::sort(segments.begin(), segments.end(),
            [](const Segment& a, const Segment& b) { return a.target_begin < b.target_begin; });
}

Alignment MakeAlignment(const std::vector<TokenRow>& rows, const AlignOptions& options) {
  Alignment alignment;
  alignment.segments = MakeSegments(rows);
  KeepLongest(options.max_segments, alignment.segments);
  for (Segment& segment : alignment.segments) {
    const auto known =
        std::find(alignment.references.begin(), alignment.references.end(), segment.reference);
    const auto number = static_cast<int>(known - alignment.references.begin());
    if (known == alignment.references.end()) alignment.references.push_back(segment.reference);
    segment.reference = number;
    alignment.matched_tokens += segment.tokens;
  }
  return alignment;
}

FuzzyBlocks TaggedBlocks(const PromptView& target, absl::Span<const PromptView> sources) {
  FuzzyBlocks blocks;
  blocks.target = Tagged(target);
  for (const PromptView& source : sources) blocks.sources.push_back(Tagged(source));
  return blocks;
}

}  // namespace

Alignment Align(const PromptView& target, absl::Span<const PromptView> sources,
                const AlignOptions& options, const FuzzyMatcher& fuzzy) {
  const int64_t tokens = static_cast<int64_t>(target.ids.size()) - 1;  // the last is never matched
  if (tokens <= 0 || sources.empty() || options.mode == MatchMode::kSemShareKv) return {};
  const bool tagged = !target.tags.empty() ||
                      std::any_of(sources.begin(), sources.end(),
                                  [](const PromptView& source) { return !source.tags.empty(); });
  SymbolTable table(tagged);
  const SymbolSpan symbols = table.Symbols(target, tokens);
  std::vector<SymbolSpan> source_symbols;
  std::vector<int64_t> source_tokens;
  for (const PromptView& source : sources) {
    source_tokens.push_back(static_cast<int64_t>(source.ids.size()));
    source_symbols.push_back(table.Symbols(source, source_tokens.back()));
  }

  std::vector<TokenRow> rows(tokens);
  if (options.mode == MatchMode::kExactPrefix) {
    AssignPrefix(symbols, source_symbols, rows);
    return MakeAlignment(rows, options);
  }
  AssignExactRuns(symbols, source_symbols, {options.min_run_tokens, options.max_references}, rows);
  if (options.mode != MatchMode::kExact) FillTokens(symbols, source_symbols, options, rows);
  if (options.mode == MatchMode::kFuzzy && fuzzy != nullptr) {
    FillFuzzy(source_tokens, TaggedBlocks(target, sources), options, fuzzy, rows);
  }
  return MakeAlignment(rows, options);
}

}  // namespace semshare
