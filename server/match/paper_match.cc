#include "server/match/paper_match.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

std::vector<int64_t> Positions(size_t count) {
  std::vector<int64_t> positions(count);
  for (size_t i = 0; i < count; ++i) positions[i] = static_cast<int64_t>(i);
  return positions;
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

double PaperSimilarity(int32_t signature_distance, const PaperOptions& options) {
  const double distance = static_cast<double>(signature_distance) / options.distance_scale;
  return std::clamp(1.0 - distance, 0.0, 1.0);
}

absl::StatusOr<Alignment> PaperAlign(absl::Span<const uint32_t> target,
                                     absl::Span<const uint32_t> source, EmbeddingSpace& space) {
  if (target.size() < 2 || source.empty()) return Alignment();
  // The last token is computed anyway, as in every alignment.
  const absl::Span<const uint32_t> matched = target.first(target.size() - 1);
  SEMSHARE_ASSIGN_OR_RETURN(const std::vector<uint64_t> queries,
                            space.TokenCodes(matched, Positions(matched.size())));
  SEMSHARE_ASSIGN_OR_RETURN(const std::vector<uint64_t> codes,
                            space.TokenCodes(source, Positions(source.size())));
  std::vector<int64_t> windows(2 * matched.size(), 0);
  for (size_t t = 0; t < matched.size(); ++t) {
    windows[2 * t + 1] = static_cast<int64_t>(source.size());
  }
  SEMSHARE_ASSIGN_OR_RETURN(const EmbeddingSpace::Nearest nearest,
                            space.NearestCodes(queries, codes, windows));
  return FromMapping(matched, source, nearest.indices);
}

std::vector<int64_t> PaperSchedule(int64_t target_tokens, int layers, int64_t mandatory,
                                   const PaperOptions& options) {
  std::vector<int64_t> schedule;
  double share = 1.0;
  for (int layer = 0; layer < layers; ++layer) {
    const auto tokens = std::llround(static_cast<double>(target_tokens) * share);
    schedule.push_back(std::min(target_tokens, std::max<int64_t>(mandatory, tokens)));
    share *= options.alpha_recompute;
  }
  return schedule;
}

}  // namespace semshare
