#include "server/match/preset_policy.h"

#include <algorithm>

namespace semshare {
namespace {

// Ranking this share of the prompt leaves this part of the KL.
struct Step {
  double ranked_share;
  double left;
};

// From pairs of SmolLM2-135M at 4,000 tokens, full prefill against each preset (docs/fidelity.md).
// They lie two to five times above what was measured, for pairs differ; rewritten text also stays
// below a quarter of what taking the reference's KV whole gives. Cheapest first.
//
// Passages in their own order: what is unmatched and recomputed is what the rows after it were not
// computed with. Little of it hardly shows.
constexpr Step kOrdered[] = {{0, 1.0},      {0.02, 0.55},  {0.03, 0.4},
                             {0.045, 0.25}, {0.10, 0.085}, {0.20, 0.03}};
constexpr double kOrderedFloor = 0.0006;
constexpr double kOrderedSlope = 0.135;
constexpr double kUnseenShare = 0.045;
// More than that was not seen, whatever part of a prompt was in another wording.
constexpr double kOrderedLargest = 0.035;
// Passages in another order differ so widely from text to text that the worker is always asked
// what matters now.
constexpr Step kReordered[] = {{0.07, 0.09}, {0.10, 0.045}, {0.20, 0.02}};
constexpr double kReorderedKl = 0.1;
// Rows of other tokens are never left alone.
constexpr double kLeastFuzzyShare = 0.045;

// Below it pairs differ more than presets do.
constexpr double kLeastPredictedKl = 0.0003;

// In a shorter prompt each row weighs more.
constexpr double kMeasuredTokens = 4000;
// Repairing the first tokens of the runs costs next to nothing up to here: two seams.
constexpr int64_t kFreeHeadTokens = 32;
constexpr double kFaithfulShare = 0.20;

double LeftAlone(const PolicyInput& input) {
  const auto tokens = static_cast<double>(input.tokens);
  const double shorter = std::max(1.0, kMeasuredTokens / tokens);
  if (input.reordered) return kReorderedKl * shorter;
  const double unmatched = static_cast<double>(input.unmatched_tokens) / tokens;
  const double kl = kOrderedFloor + kOrderedSlope * std::max(0.0, unmatched - kUnseenShare);
  return std::min(kl, kOrderedLargest) * shorter;
}

}  // namespace

PresetChoice ChoosePreset(const PolicyInput& input) {
  const double alone = LeftAlone(input);
  const auto choose = [&](const auto& steps) {
    for (const Step& step : steps) {
      if (input.fuzzy && step.ranked_share < kLeastFuzzyShare) continue;
      if (std::max(kLeastPredictedKl, alone * step.left) <= input.kl_target) {
        return step.ranked_share;
      }
    }
    return kFaithfulShare;
  };
  const double share = input.reordered ? choose(kReordered) : choose(kOrdered);
  if (share >= kFaithfulShare) return {Preset::kFaithful, share};
  if (share > 0) return {Preset::kBalanced, share};
  return {input.head_tokens <= kFreeHeadTokens ? Preset::kHeads : Preset::kFast, 0};
}

}  // namespace semshare
