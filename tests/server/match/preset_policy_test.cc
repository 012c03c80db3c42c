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
      // Above what is free for heads, so that only the target decides.
      for (const int64_t head_tokens : {800, 2000}) {
        for (const int64_t unmatched_tokens : {40, 600, 880, 2000}) {
          int last = 0;
          for (const double kl_target : {1.0, 0.05, 0.02, 0.01, 0.005, 0.001, 0.0001}) {
            const int now = rank(
                ChoosePreset({kl_target, 4000, head_tokens, unmatched_tokens, reordered, fuzzy})
                    .preset);
            EXPECT_GE(now, last) << kl_target << " " << unmatched_tokens;
            last = now;
          }
        }
      }
    }
  }
}

// A prompt of `tokens` in its own order.
PresetChoice Ordered(double kl_target, int64_t tokens, int64_t head_tokens,
                     int64_t unmatched_tokens) {
  return ChoosePreset({kl_target, tokens, head_tokens, unmatched_tokens, false, false});
}

PresetChoice Balanced(double share) { return {Preset::kBalanced, share}; }

TEST(PresetPolicyTest, KnownPairs) {
  // A longer system prompt: one seam.
  EXPECT_EQ(Ordered(0.002, 4114, 16, 101).preset, Preset::kHeads);
  // A tenth of the sentences deleted; a twentieth of the words replaced; a tenth of the sentences
  // in another wording.
  EXPECT_EQ(Ordered(0.003, 3643, 224, 25).preset, Preset::kFast);
  EXPECT_EQ(Ordered(0.01, 4035, 1860, 190).preset, Preset::kFast);
  EXPECT_EQ(Ordered(0.001, 4369, 900, 188).preset, Preset::kFast);
  // Three tenths; half of the sentences, at three targets.
  EXPECT_EQ(Ordered(0.01, 4409, 2000, 520), Balanced(0.02));
  EXPECT_EQ(Ordered(0.015, 4475, 2000, 904), Balanced(0.02));
  EXPECT_EQ(Ordered(0.01, 4475, 2000, 904), Balanced(0.03));
  EXPECT_EQ(Ordered(0.002, 4475, 2000, 904), Balanced(0.10));
  EXPECT_EQ(Ordered(0.0001, 4475, 2000, 904).preset, Preset::kFaithful);
  // All of them: no worse than half, but for what is computed anyway.
  EXPECT_EQ(Ordered(0.01, 4670, 4000, 1840), Balanced(0.045));
  EXPECT_EQ(Ordered(0.002, 4670, 4000, 1840).preset, Preset::kFaithful);
  // Short prompts: a header is much of one, a sentence is not.
  EXPECT_EQ(Ordered(0.01, 816, 16, 104), Balanced(0.10));
  EXPECT_EQ(Ordered(0.01, 700, 16, 34).preset, Preset::kHeads);
}

TEST(PresetPolicyTest, OtherOrderAndOtherTokensAreNeverLeftAlone) {
  EXPECT_EQ(ChoosePreset({0.02, 4000, 8, 80, true, false}), Balanced(0.07));
  EXPECT_EQ(ChoosePreset({0.01, 4000, 8, 80, true, false}), Balanced(0.07));
  EXPECT_EQ(ChoosePreset({0.005, 4000, 80, 80, true, false}), Balanced(0.10));
  EXPECT_EQ(ChoosePreset({0.001, 4000, 80, 80, true, false}).preset, Preset::kFaithful);
  // In a shorter prompt each passage weighs more.
  EXPECT_EQ(ChoosePreset({0.01, 2000, 8, 80, true, false}), Balanced(0.10));
  EXPECT_EQ(ChoosePreset({0.01, 737, 8, 20, true, false}).preset, Preset::kFaithful);
  EXPECT_EQ(ChoosePreset({0.02, 4000, 8, 80, false, true}), Balanced(0.045));
}

}  // namespace
}  // namespace semshare
