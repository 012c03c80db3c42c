// The paper's own retrieval and token matching (SemShareKV, arXiv 2509.24832, section 4): kept
// runnable as the baseline of every report.
// Thread-safe: pure functions.
#ifndef SEMSHARE_SERVER_MATCH_PAPER_MATCH_H_
#define SEMSHARE_SERVER_MATCH_PAPER_MATCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/match/embedding_space.h"
#include "server/match/types.h"

namespace semshare {

// OK, or INVALID_ARGUMENT naming the first number that makes no sense.
absl::Status CheckPaperOptions(const PaperOptions& options);

// clip(1 - distance / distance_scale, 0, 1).
double PaperSimilarity(int32_t signature_distance, const PaperOptions& options);

// Every target token takes its nearest reference token by codes of RoPE'd embeddings, many-to-one
// allowed. Segments are of kind kFuzzy unless the ids are equal. Tokens under a content tag, of
// either side, are never matched: their embeddings say nothing of their content.
absl::StatusOr<Alignment> PaperAlign(const PromptView& target, const PromptView& source,
                                     EmbeddingSpace& space);

// Tokens that each layer computes: the whole prompt at layer 0, then T * alpha^l, at most the
// high-deviation tokens, at least `mandatory`.
std::vector<int64_t> PaperSchedule(int64_t target_tokens, int layers, int64_t mandatory,
                                   const PaperOptions& options);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_PAPER_MATCH_H_
