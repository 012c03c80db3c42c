#include "server/match/preset_policy.h"

#include <gtest/gtest.h>

namespace semshare {
namespace {

TEST(PresetPolicyTest, AStricterTargetNeverGetsACheaperPreset) {
  const auto rank = [](Preset preset) {
    switch (preset) {
      case Preset::kFast:
        return 0;
      case Preset::kHeads:
        return 1;
      case Preset::kBalanced:
        return 2;
      case Preset::kFaithful:
        return 3;
      default:
        ADD_FAILURE() << "not a preset that AUTO may choose";
        return 4;
    }
  };
  for (const bool reordered : {false, true}) {
    for (const bool fuzzy : {false, true}) {
      // Above the share at which heads are cheap, so that only the target decides.
      for (const double head_share : {0.2, 0.5}) {
        for (const double unmatched_share : {0.01, 0.15, 0.22, 0.5}) {
          int last = 0;
          for (const double kl_target : {1.0, 0.05, 0.02, 0.01, 0.005, 0.001, 0.0001}) {
            const int now = rank(
                ChoosePreset({kl_target, head_share, unmatched_share, reordered, fuzzy}).preset);
            EXPECT_GE(now, last) << kl_target << " " << unmatched_share;
            last = now;
          }
        }
      }
    }
  }
}

TEST(PresetPolicyTest, KnownPairs) {
  // A longer system prompt before 3,800 tokens: one seam.
  EXPECT_EQ(ChoosePreset({0.002, 0.004, 0.025, false, false}).preset, Preset::kHeads);
  // A tenth of the sentences deleted; a twentieth of the words replaced; a tenth of the sentences
  // in another wording.
  EXPECT_EQ(ChoosePreset({0.003, 0.07, 0.007, false, false}).preset, Preset::kFast);
  EXPECT_EQ(ChoosePreset({0.01, 0.5, 0.047, false, false}).preset, Preset::kFast);
  EXPECT_EQ(ChoosePreset({0.001, 0.5, 0.044, false, false}).preset, Preset::kFast);
  // Three tenths; half of the sentences, at three targets.
  EXPECT_EQ(ChoosePreset({0.01, 0.6, 0.118, false, false}),
            (PresetChoice{Preset::kBalanced, 0.02}));
  EXPECT_EQ(ChoosePreset({0.015, 0.6, 0.202, false, false}),
            (PresetChoice{Preset::kBalanced, 0.02}));
  EXPECT_EQ(ChoosePreset({0.01, 0.6, 0.202, false, false}),
            (PresetChoice{Preset::kBalanced, 0.03}));
  EXPECT_EQ(ChoosePreset({0.002, 0.6, 0.202, false, false}),
            (PresetChoice{Preset::kBalanced, 0.10}));
  EXPECT_EQ(ChoosePreset({0.0001, 0.6, 0.20, false, false}).preset, Preset::kFaithful);
  // Passages in another order: never by their heads alone.
  EXPECT_EQ(ChoosePreset({0.02, 0.002, 0.02, true, false}),
            (PresetChoice{Preset::kBalanced, 0.07}));
  EXPECT_EQ(ChoosePreset({0.005, 0.02, 0.02, true, false}),
            (PresetChoice{Preset::kBalanced, 0.10}));
  EXPECT_EQ(ChoosePreset({0.001, 0.02, 0.02, true, false}).preset, Preset::kFaithful);
  // Other tokens' rows are never left alone.
  EXPECT_EQ(ChoosePreset({0.02, 0.002, 0.02, false, true}),
            (PresetChoice{Preset::kBalanced, 0.045}));
}

}  // namespace
}  // namespace semshare
