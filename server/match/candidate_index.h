// CandidateIndex: which stored references may serve a target prompt. One per namespace.
//
// Two parts: winnowed grams of token ids (every shared run of at least 40 tokens is found at any
// offset, as long as one of its grams is below the frequency cap; grams that occur in many
// references weigh less) and LSH signatures of meaning (prompt codes scanned by Hamming distance,
// window codes, looked up by some of their bits, for spans that grams leave uncovered).
//
// Made for a million references of thousands of tokens: at most 2,560 bytes for one of 2,000 tokens
// (its ids are not kept). Memory is kept for later references when references are removed.
//
// Thread-safe: there is no lock that two calls always share. A query finds every reference whose
// Add returned before it began, and may find one whose Remove runs beside it. Owns its memory; the
// Backend must outlive it.
#ifndef SEMSHARE_SERVER_MATCH_CANDIDATE_INDEX_H_
#define SEMSHARE_SERVER_MATCH_CANDIDATE_INDEX_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "storage/ids.h"

namespace semshare {

struct CandidateIndexOptions {
  int gram_tokens = 20;    // tokens hashed into one gram
  int winnow_window = 21;  // grams per winnowing window: runs of gram + window - 1 = 40 are found
  int gram_reference_cap = 64;  // a gram in more references than this adds nothing new
  int max_candidates = 8;
  int max_signature_distance = 96;  // of 256 bits; farther prompts are no semantic candidates
  uint64_t gram_key = 0;            // keyed per namespace
  absl::Status Validate() const;
};

// Share of a prompt that grams must cover to spare the search by meaning.
inline constexpr double kMeaningSpared = 0.9;

struct Candidate {
  ReferenceId id;
  double gram_tokens = 0;        // estimated tokens shared, by grams
  int signature_distance = 256;  // of the prompt codes
};

struct CandidateIndexStats {
  int64_t references = 0;
  int64_t grams = 0;
  int64_t bytes = 0;
};

class CandidateIndex {
 public:
  static absl::StatusOr<std::unique_ptr<CandidateIndex>> Create(
      const CandidateIndexOptions& options, Backend* backend);
  virtual ~CandidateIndex() = default;

  // `signatures` as EmbeddingSpace::Signatures gives them, or none. Adding an id again replaces its
  // signatures. INVALID_ARGUMENT if it was added with other token ids.
  virtual absl::Status Add(const ReferenceId& id, absl::Span<const uint32_t> token_ids,
                           absl::Span<const uint64_t> signatures) = 0;
  // The token ids say what to take out. No effect if the id is not there; INVALID_ARGUMENT, and no
  // effect, if it was added with other token ids.
  virtual absl::Status Remove(const ReferenceId& id, absl::Span<const uint32_t> token_ids) = 0;

  // Best first, at most max_candidates: gram candidates by estimated shared tokens, then signature
  // candidates by distance.
  virtual absl::StatusOr<std::vector<Candidate>> Query(absl::Span<const uint32_t> token_ids,
                                                       absl::Span<const uint64_t> signatures) = 0;

  // The same without the cost of meaning where it cannot add anything: if grams cover nearly all of
  // the prompt (kMeaningSpared), signatures are not asked for, and references are left out that
  // cover nothing more and share much less than the best. An error of the source is the answer.
  using SignatureSource = absl::FunctionRef<absl::StatusOr<std::vector<uint64_t>>()>;
  virtual absl::StatusOr<std::vector<Candidate>> QueryOnDemand(absl::Span<const uint32_t> token_ids,
                                                               SignatureSource signatures) = 0;

  virtual CandidateIndexStats stats() const = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_CANDIDATE_INDEX_H_
