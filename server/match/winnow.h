// Winnowed grams of token ids: few hashes by which prompts that share a passage meet.
//
// A gram is a keyed hash of `gram_tokens` consecutive ids; of every `winnow_window` consecutive
// grams the smallest is kept (Schleimer, Wilkerson and Aiken, 2003), so two prompts that share a
// run of gram_tokens + winnow_window - 1 ids share a kept gram at the same place of the run.
//
// Thread-safe: pure functions. The same on every processor.
#ifndef SEMSHARE_SERVER_MATCH_WINNOW_H_
#define SEMSHARE_SERVER_MATCH_WINNOW_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace semshare {

struct Gram {
  uint64_t hash = 0;
  int64_t position = 0;  // of its first token
};

struct GramOptions {
  int gram_tokens = 20;
  int winnow_window = 21;
  int cap = 64;
  uint64_t key = 0;
};

// The kept grams, ascending by position; neighbours are at most winnow_window apart. None if the
// prompt is shorter than a gram.
std::vector<Gram> Winnow(absl::Span<const uint32_t> ids, const GramOptions& options);

// The hashes of the grams, each once, ascending.
std::vector<uint64_t> DistinctHashes(absl::Span<const Gram> grams);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_WINNOW_H_
