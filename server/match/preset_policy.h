// ChoosePreset: which preset PRESET_AUTO becomes, and how much of the prompt it ranks: the least
// that is predicted to keep the caller's KL target. The prediction's numbers come from measurements
// (full prefill against each preset) and are meant to be tuned.
//
// Thread-safe: a pure function.
#ifndef SEMSHARE_SERVER_MATCH_PRESET_POLICY_H_
#define SEMSHARE_SERVER_MATCH_PRESET_POLICY_H_

#include <cstdint>

#include "server/match/types.h"

namespace semshare {

// What the choice depends on.
struct PolicyInput {
  double kl_target = 0.01;  // nats, first token
  int64_t tokens = 0;       // of the target
  int64_t head_tokens = 0;  // that kHeads would add
  int64_t unmatched_tokens = 0;
  bool reordered = false;
  bool fuzzy = false;  // some rows come from other tokens
};

struct PresetChoice {
  Preset preset = Preset::kFaithful;  // never kAuto or kSemShareKv
  double ranked_share = 0;            // share of the prompt that kBalanced and kFaithful add

  bool operator==(const PresetChoice&) const = default;
};

// REQUIRES: tokens > 0.
PresetChoice ChoosePreset(const PolicyInput& input);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_PRESET_POLICY_H_
