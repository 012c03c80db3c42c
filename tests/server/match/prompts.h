// Prompts for tests of matching: random ids with fixed seeds, and edits of them.
// Not thread-safe: a Prompts belongs to one test.
#ifndef SEMSHARE_TESTS_SERVER_MATCH_PROMPTS_H_
#define SEMSHARE_TESTS_SERVER_MATCH_PROMPTS_H_

#include <cstdint>
#include <random>
#include <vector>

#include "server/match/types.h"

namespace semshare {

using Ids = std::vector<uint32_t>;

class Prompts {
 public:
  explicit Prompts(uint64_t seed, uint32_t vocab = 1000) : random_(seed), vocab_(vocab) {}

  // In [0, bound).
  int64_t Below(int64_t bound);
  // Ids with frequencies as in text: low ids are common.
  Ids Text(int64_t tokens);
  // Replaces, deletes or inserts, about `share` of the tokens in all, one at a time.
  Ids Edited(const Ids& ids, double share);
  // Whole paragraphs of `tokens` in another order.
  Ids Shuffled(const Ids& ids, int64_t tokens);

 private:
  std::mt19937_64 random_;
  const uint32_t vocab_;
};

Ids Join(std::initializer_list<Ids> parts);
Ids Slice(const Ids& ids, int64_t begin, int64_t end);

PromptView View(const Ids& ids);
std::vector<PromptView> Views(const std::vector<Ids>& prompts);

// The source token of each target token, or -1; and its source.
std::vector<int64_t> PlaceOfEach(const Alignment& alignment, int64_t target_tokens);

}  // namespace semshare

#endif  // SEMSHARE_TESTS_SERVER_MATCH_PROMPTS_H_
