#include "server/match/paper_match.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

// The tokens of a prompt that embeddings describe: those below `end` that no tag covers.
struct Tokens {
  std::vector<int64_t> positions;
  std::vector<uint32_t> ids;
};

Tokens Untagged(const PromptView& prompt, int64_t end) {
  std::vector<bool> tagged(end);
  for (const ContentTag& tag : prompt.tags) {
    for (int64_t t = tag.begin; t < std::min(end, tag.end); ++t) tagged[t] = true;
  }
  Tokens tokens;
  for (int64_t t = 0; t < end; ++t) {
    if (tagged[t]) continue;
    tokens.positions.push_back(t);
    tokens.ids.push_back(prompt.ids[t]);
  }
  return tokens;
}

// Segments of the mapping target token t -> places[t] (-1: none).
Alignment FromMapping(absl::Span<const uint32_t> target, absl::Span<const uint32_t> source,
                      const std::vector<int64_t>& places) {
  Alignment alignment;
  for (int64_t t = 0; t < static_cast<int64_t>(places.size()); ++t) {
    if (places[t] < 0) continue;
    const SegmentKind kind =
        target[t] == source[places[t]] ? SegmentKind::kExact : SegmentKind::kFuzzy;
    Segment* last = alignment.segments.empty() ? nullptr : &alignment.segments.back();
    if (last != nullptr && last->kind == kind && last->target_begin + last->tokens == t &&
        last->source_begin + last->tokens == places[t]) {
      ++last->tokens;
    } else {
      alignment.segments.push_back({t, 0, places[t], 1, kind});
    }
    ++alignment.matched_tokens;
  }
  if (!alignment.segments.empty()) alignment.references = {0};
  return alignment;
}

}  // namespace

absl::Status CheckPaperOptions(const PaperOptions& options) {
  struct Named {
    const char* name;
    double value;
    bool positive;  // 0 makes no sense
  };
  // Comparisons that a NaN fails.
  if (!(options.distance_scale > 0 && options.distance_scale <= 1e6)) {
    return absl::InvalidArgumentError("semsharekv.distance_scale: must be in (0, 1e6]");
  }
  for (const Named& each : {Named{"similarity_trigger", options.similarity_trigger, false},
                            Named{"high_deviation_share", options.high_deviation_share, true},
                            Named{"attention_recovery", options.attention_recovery, true},
                            Named{"hot_weight", options.hot_weight, true},
                            Named{"cold_weight", options.cold_weight, false},
                            Named{"alpha_recompute", options.alpha_recompute, true},
                            Named{"alpha_retain", options.alpha_retain, true}}) {
    if (each.value <= 1 && (each.positive ? each.value > 0 : each.value >= 0)) continue;
    return absl::InvalidArgumentError(absl::StrCat("semsharekv.", each.name, ": must be in ",
                                                   each.positive ? "(0, 1]" : "[0, 1]"));
  }
  return absl::OkStatus();
}

double PaperSimilarity(int32_t signature_distance, const PaperOptions& options) {
  const double distance = static_cast<double>(signature_distance) / options.distance_scale;
  return std::clamp(1.0 - distance, 0.0, 1.0);
}

absl::StatusOr<Alignment> PaperAlign(const PromptView& target, const PromptView& source,
                                     EmbeddingSpace& space) {
  if (target.ids.size() < 2) return Alignment();
  // The last token is computed anyway, as in every alignment.
  const int64_t end = static_cast<int64_t>(target.ids.size()) - 1;
  const Tokens wanted = Untagged(target, end);
  const Tokens offered = Untagged(source, static_cast<int64_t>(source.ids.size()));
  if (wanted.ids.empty() || offered.ids.empty()) return Alignment();
  SEMSHARE_ASSIGN_OR_RETURN(const std::vector<uint64_t> queries,
                            space.TokenCodes(wanted.ids, wanted.positions));
  SEMSHARE_ASSIGN_OR_RETURN(const std::vector<uint64_t> codes,
                            space.TokenCodes(offered.ids, offered.positions));
  std::vector<int64_t> windows(2 * wanted.ids.size(), 0);
  for (size_t t = 0; t < wanted.ids.size(); ++t) {
    windows[2 * t + 1] = static_cast<int64_t>(offered.ids.size());
  }
  SEMSHARE_ASSIGN_OR_RETURN(const EmbeddingSpace::Nearest nearest,
                            space.NearestCodes(queries, codes, windows));
  std::vector<int64_t> places(end, -1);
  for (size_t t = 0; t < wanted.ids.size(); ++t) {
    const int64_t index = nearest.indices[t];
    if (index >= 0) places[wanted.positions[t]] = offered.positions[index];
  }
  return FromMapping(target.ids, source.ids, places);
}

std::vector<int64_t> PaperSchedule(int64_t target_tokens, int layers, int64_t mandatory,
                                   const PaperOptions& options) {
  std::vector<int64_t> schedule;
  double share = 1.0;
  double limit = 1.0;  // layer 0 computes every token, to see which deviate
  for (int layer = 0; layer < layers; ++layer) {
    const auto tokens = std::llround(static_cast<double>(target_tokens) * std::min(share, limit));
    schedule.push_back(std::min(target_tokens, std::max<int64_t>(mandatory, tokens)));
    share *= options.alpha_recompute;
    limit = options.high_deviation_share;
  }
  return schedule;
}

}  // namespace semshare
