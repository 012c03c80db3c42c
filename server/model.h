// Model: what the broker knows of a registered model.
//
// ModelInfo is a value. A Model is immutable but for its index, which is thread-safe; whoever holds
// the shared_ptr may use it while the model is being deleted.
#ifndef SEMSHARE_SERVER_MODEL_H_
#define SEMSHARE_SERVER_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/match/candidate_index.h"
#include "server/match/embedding_space.h"
#include "storage/ids.h"
#include "storage/kv_layout.h"

namespace semshare {

struct ModelInfo {
  std::string name;
  std::string fingerprint;         // 32 bytes
  std::optional<KvLayout> layout;  // always set once parsed
  int64_t vocab_size = 0;
  int32_t embedding_width = 0;
  int64_t max_positions = 0;
  std::string embedding_digest;      // 32 bytes
  std::string token_weights_digest;  // 32 bytes or empty
  uint64_t projection_seed = 0;
  // The contract's own encoding of the spec, as it is stored.
  std::string serialized;
};

// Reads ModelInfo from a serialized spec. The contract's layer supplies it, so that this one knows
// nothing of protobuf.
using ModelInfoParser = std::function<absl::StatusOr<ModelInfo>(std::string_view)>;

struct Model {
  ModelInfo info;
  NamespaceId ns;
  std::string tenant;
  std::unique_ptr<EmbeddingSpace> space;
  std::unique_ptr<CandidateIndex> index;
  int64_t resident_bytes = 0;  // embedding table and projected rows

  const KvLayout& layout() const { return *info.layout; }
};
using ModelPtr = std::shared_ptr<Model>;

// A row set of a one-token prompt, [layer][plane][head][width] in the model's dtype.
struct ProbeSample {
  uint32_t token_id = 0;
  int64_t position = 0;
  std::string rows;
};

inline constexpr int kProbeTokens = 4;

// Checks that each token's rows at every position are the realigned rows of its first position, and
// that unrotated planes are equal. Returns the largest relative row error. INVALID_ARGUMENT: too
// few tokens or positions (at least kProbeTokens tokens, each at 0, 1 and max_positions - 1), wrong
// sizes, non-finite rows. FAILED_PRECONDITION names the layer and plane that disagree.
absl::StatusOr<double> CheckProbe(const ModelInfo& info, const std::vector<ProbeSample>& samples);

// Compares two probes of one fingerprint: the largest relative row error at the deepest layer over
// samples with the same token and position. FAILED_PRECONDITION if it is above the tolerance: same
// parameters, other numerics. INVALID_ARGUMENT if they share no sample.
absl::StatusOr<double> CompareProbes(const ModelInfo& info, const std::vector<ProbeSample>& stored,
                                     const std::vector<ProbeSample>& fresh);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MODEL_H_
