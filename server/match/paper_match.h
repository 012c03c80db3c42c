// The paper's own retrieval and token matching (SemShareKV, arXiv 2509.24832, section 4): kept
// runnable as the baseline of every report.
// Thread-safe: pure functions.
#ifndef SEMSHARE_SERVER_MATCH_PAPER_MATCH_H_
#define SEMSHARE_SERVER_MATCH_PAPER_MATCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/match/embedding_space.h"
#include "server/match/types.h"

namespace semshare {

struct PaperOptions {
  double distance_scale = 30.0;  // d = distance / 30, similarity = clip(1 - d, 0, 1)
  double similarity_trigger = 0.8;
  double high_deviation_share = 0.4;
  double attention_recovery = 0.55;
  double hot_weight = 0.5;
  double cold_weight = 0.1;
  double alpha_recompute = 0.79;  // layer l computes T * alpha^l tokens
};

// clip(1 - distance / distance_scale, 0, 1).
double PaperSimilarity(int32_t signature_distance, const PaperOptions& options);

// Every target token takes its nearest reference token by codes of RoPE'd embeddings, many-to-one
// allowed. Segments are of kind kFuzzy unless the ids are equal. Tokens under a content tag, of
// either side, are never matched: their embeddings say nothing of their content.
absl::StatusOr<Alignment> PaperAlign(const PromptView& target, const PromptView& source,
                                     EmbeddingSpace& space);

// Tokens that each layer computes: the whole prompt at layer 0, then T * alpha^l, at least
// `mandatory`.
std::vector<int64_t> PaperSchedule(int64_t target_tokens, int layers, int64_t mandatory,
                                   const PaperOptions& options);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_PAPER_MATCH_H_
