#include "server/match/winnow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "hwy/highway.h"
#include "server/match/mix.h"
#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

using testing::IsEmpty;

// Word for word what the header says, in one instruction set.
std::vector<Gram> WinnowPlainly(const Ids& ids, const GramOptions& options) {
  const int64_t count = static_cast<int64_t>(ids.size()) - options.gram_tokens + 1;
  const uint64_t key = Mix(options.key + 0x9e3779b97f4a7c15u);
  std::vector<uint64_t> hashes;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t sum = 0;
    for (int64_t t = i; t < i + options.gram_tokens; ++t) {
      sum = sum * 0xd6e8feb86659fd93u + Mix(key ^ (uint64_t{ids[t]} + 1));
    }
    hashes.push_back(Mix(sum ^ key));
  }
  const int64_t window = std::min<int64_t>(options.winnow_window, count);
  std::vector<Gram> kept;
  for (int64_t begin = 0; begin + window <= count; ++begin) {
    int64_t best = begin;
    for (int64_t i = begin; i < begin + window; ++i) {
      if (hashes[i] >> 32 <= hashes[best] >> 32) best = i;
    }
    if (kept.empty() || kept.back().position != best) kept.push_back({hashes[best], best});
  }
  return kept;
}

TEST(WinnowTest, KeepsTheSameOnEveryInstructionSet) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    Prompts prompts(7, 3);  // few symbols: many equal grams
    for (const int length : {1, 2, 3, 20, 31, 64}) {
      for (const int window : {1, 2, 7, 21, 64}) {
        const GramOptions options{length, window, 64, 5};
        for (const int64_t tokens : {length, length + 1, length + window, 257, 1000}) {
          const Ids text = prompts.Text(tokens);
          const std::vector<Gram> expected = WinnowPlainly(text, options);
          const std::vector<Gram> found = Winnow(text, options);
          ASSERT_EQ(found.size(), expected.size()) << length << " " << window << " " << tokens;
          for (size_t i = 0; i < found.size(); ++i) {
            EXPECT_EQ(found[i].hash, expected[i].hash);
            EXPECT_EQ(found[i].position, expected[i].position);
          }
        }
      }
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

TEST(WinnowTest, KeepsOneGramOfEveryWindow) {
  Prompts prompts(1);
  const GramOptions options;
  for (const int64_t tokens : {0, 1, 19, 20, 39, 40, 41, 1000}) {
    const std::vector<Gram> grams = Winnow(prompts.Text(tokens), options);
    if (tokens < options.gram_tokens) {
      EXPECT_THAT(grams, IsEmpty());
      continue;
    }
    ASSERT_FALSE(grams.empty());
    EXPECT_LT(grams.front().position, options.winnow_window);
    for (size_t i = 1; i < grams.size(); ++i) {
      EXPECT_GT(grams[i].position, grams[i - 1].position);
      EXPECT_LE(grams[i].position - grams[i - 1].position, options.winnow_window);
    }
    EXPECT_LE(grams.back().position + options.gram_tokens, tokens);
    EXPECT_GT(grams.back().position + options.gram_tokens + options.winnow_window, tokens);
  }
}

TEST(WinnowTest, EverySharedRunOfFortyTokensSharesAGramAtTheSamePlace) {
  const GramOptions options;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Prompts prompts(seed, seed % 5 == 0 ? 2 : 5000);  // few symbols: many equal grams
    const Ids run = prompts.Text(40);
    const int64_t first_offset = prompts.Below(100);
    const int64_t second_offset = prompts.Below(100);
    const Ids first = Join({prompts.Text(first_offset), run, prompts.Text(prompts.Below(100))});
    const Ids second = Join({prompts.Text(second_offset), run, prompts.Text(prompts.Below(100))});
    bool found = false;
    for (const Gram& a : Winnow(first, options)) {
      for (const Gram& b : Winnow(second, options)) {
        found =
            found || (a.hash == b.hash && a.position - first_offset == b.position - second_offset &&
                      a.position >= first_offset);
      }
    }
    EXPECT_TRUE(found) << seed;
  }
}

TEST(WinnowTest, TheKeyChangesEveryHash) {
  Prompts prompts(2);
  const Ids text = prompts.Text(500);
  GramOptions other;
  other.key = 1;
  const std::vector<uint64_t> a = DistinctHashes(Winnow(text, GramOptions()));
  const std::vector<uint64_t> b = DistinctHashes(Winnow(text, other));
  std::vector<uint64_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  EXPECT_THAT(both, IsEmpty());
}

}  // namespace
}  // namespace semshare
