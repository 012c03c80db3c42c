#include "server/match/preset_policy.h"

namespace semshare {
namespace {

// A preset is chosen where the caller accepts at least this KL and the alignment stays within the
// other columns.
struct PolicyRow {
  PresetChoice choice;
  double min_kl_target;
  double max_head_share;
  double max_unmatched_share;
  bool reordered;  // may serve reordered passages
  bool fuzzy;      // may serve fuzzy rows
};

constexpr double kAny = 1.0;

// Measured on SmolLM2-135M at 3,500 tokens; docs/benchmarks.md has the figures.
constexpr PolicyRow kPolicy[] = {
    // Few seams: a longer system prompt, an inserted passage. Repairing the heads of the runs is
    // nearly free.
    {{Preset::kHeads, 0}, 0.002, 0.03, kAny, false, false},
    // Deleted sentences, replaced words, a new version: a little by importance x seam prior.
    {{Preset::kBalanced, 0.045}, 0.005, kAny, 0.12, false, true},
    {{Preset::kBalanced, 0.10}, 0.002, kAny, 0.25, false, true},
    // Other order: the worker asks what matters now.
    {{Preset::kBalanced, 0.09}, 0.005, kAny, 0.12, true, true},
};
constexpr PresetChoice kStrictest = {Preset::kFaithful, 0.20};

}  // namespace

PresetChoice ChoosePreset(const PolicyInput& input) {
  for (const PolicyRow& row : kPolicy) {
    if (input.kl_target >= row.min_kl_target && input.head_share <= row.max_head_share &&
        input.unmatched_share <= row.max_unmatched_share && (row.reordered || !input.reordered) &&
        (row.fuzzy || !input.fuzzy)) {
      return row.choice;
    }
  }
  return kStrictest;
}

}  // namespace semshare
