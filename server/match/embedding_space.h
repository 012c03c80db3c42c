// EmbeddingSpace: what a model's token embedding table gives to matching: signatures of prompts and
// windows, and codes of single tokens.
//
// Signatures are sign random projections of weighted sums of token embeddings (mean removed); the
// projection is linear, so the vocabulary is projected once here and a signature is the sign of a
// sum of projected rows. Token codes are signs of projected, RoPE'd embeddings (SemShareKV,
// arXiv 2509.24832).
//
// Thread-safe. Owns its buffers; the Backend must outlive it.
#ifndef SEMSHARE_SERVER_MATCH_EMBEDDING_SPACE_H_
#define SEMSHARE_SERVER_MATCH_EMBEDDING_SPACE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"

namespace semshare {

inline constexpr int kSignatureBits = 256;
inline constexpr int kSignatureWords = kSignatureBits / 64;
inline constexpr int64_t kSignatureWindowTokens = 256;
inline constexpr uint32_t kSignatureVersion = 1;

struct EmbeddingSpec {
  int64_t vocab = 0;
  int32_t width = 0;
  uint64_t projection_seed = 0;
};

// A fixed weight per token id, made from the vocabulary's order: smooth inverse frequency a / (a +
// p) with Zipf's p(rank), a = 1e-3 (BPE ids are roughly in order of frequency).
std::vector<float> DefaultTokenWeights(int64_t vocab);

class EmbeddingSpace {
 public:
  // `table` is float[vocab][width], `weights` float[vocab]. Projects the vocabulary on a lane.
  static absl::StatusOr<std::unique_ptr<EmbeddingSpace>> Create(const EmbeddingSpec& spec,
                                                                absl::Span<const float> table,
                                                                absl::Span<const float> weights,
                                                                Backend* backend);
  virtual ~EmbeddingSpace() = default;

  // The prompt's code, then one per window of kSignatureWindowTokens (the last may be short):
  // (1 + ceil(n / 256)) * kSignatureWords words. REQUIRES: ids < vocab, not empty.
  virtual absl::StatusOr<std::vector<uint64_t>> Signatures(absl::Span<const uint32_t> ids) = 0;

  // kSignatureWords words per token. `positions` as RoPE sees them.
  virtual absl::StatusOr<std::vector<uint64_t>> TokenCodes(absl::Span<const uint32_t> ids,
                                                           absl::Span<const int64_t> positions) = 0;

  // For each query code the index of the nearest of `codes` within [windows[i][0], windows[i][1])
  // and its Hamming distance; index -1 for an empty window.
  struct Nearest {
    std::vector<int64_t> indices;
    std::vector<int32_t> distances;
  };
  virtual absl::StatusOr<Nearest> NearestCodes(absl::Span<const uint64_t> queries,
                                               absl::Span<const uint64_t> codes,
                                               absl::Span<const int64_t> windows) = 0;
};

// Cosine of the angle that a Hamming distance between sign codes estimates: cos(pi d / bits).
double CodeSimilarity(int32_t distance, int bits);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_EMBEDDING_SPACE_H_
