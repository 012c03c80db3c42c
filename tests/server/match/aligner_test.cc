#include "server/match/aligner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

AlignOptions Options(MatchMode mode) {
  AlignOptions options;
  options.mode = mode;
  return options;
}

Alignment AlignIds(const Ids& target, const std::vector<Ids>& sources, AlignOptions options = {}) {
  return Align(View(target), Views(sources), options, nullptr);
}

// Everything that must hold for any input: order, bounds, merging, true equality of ids.
void ExpectValid(const Ids& target, const std::vector<Ids>& sources, const Alignment& alignment) {
  int64_t matched = 0;
  const Segment* last = nullptr;
  std::vector<bool> used(alignment.references.size());
  for (const Segment& segment : alignment.segments) {
    ASSERT_GT(segment.tokens, 0);
    ASSERT_LT(segment.reference, static_cast<int>(alignment.references.size()));
    used[segment.reference] = true;
    const Ids& source = sources[alignment.references[segment.reference]];
    ASSERT_LE(segment.target_begin + segment.tokens, static_cast<int64_t>(target.size()) - 1);
    ASSERT_LE(segment.source_begin + segment.tokens, static_cast<int64_t>(source.size()));
    for (int64_t i = 0; i < segment.tokens && segment.kind != SegmentKind::kFuzzy; ++i) {
      ASSERT_EQ(target[segment.target_begin + i], source[segment.source_begin + i]);
    }
    if (last != nullptr) {
      const int64_t end = last->target_begin + last->tokens;
      ASSERT_GE(segment.target_begin, end);
      ASSERT_FALSE(segment.target_begin == end && segment.reference == last->reference &&
                   segment.source_begin == last->source_begin + last->tokens &&
                   segment.kind == last->kind)
          << "not merged";
    }
    matched += segment.tokens;
    last = &segment;
  }
  EXPECT_EQ(matched, alignment.matched_tokens);
  EXPECT_EQ(std::count(used.begin(), used.end(), false), 0);
}

// Target tokens that lie in some equal run of at least 8 tokens: what exact runs can cover.
int64_t CoverableTokens(const Ids& target, const Ids& source, int64_t min_run) {
  const auto n = static_cast<int64_t>(target.size()) - 1;
  const auto m = static_cast<int64_t>(source.size());
  std::vector<bool> covered(n);
  std::vector<int64_t> before(m + 1, 0);
  for (int64_t t = 0; t < n; ++t) {
    std::vector<int64_t> length(m + 1, 0);
    for (int64_t s = 0; s < m; ++s) {
      if (target[t] != source[s]) continue;
      length[s + 1] = before[s] + 1;
      const int64_t run = length[s + 1];
      if (run >= min_run) std::fill(covered.begin() + t + 1 - run, covered.begin() + t + 1, true);
    }
    before = length;
  }
  return std::count(covered.begin(), covered.end(), true);
}

TEST(AlignerTest, EmptyAndTinyPromptsMatchNothing) {
  Prompts prompts(1);
  const Ids text = prompts.Text(100);
  EXPECT_THAT(AlignIds({}, {text}).segments, IsEmpty());
  EXPECT_THAT(AlignIds({text[0]}, {text}).segments, IsEmpty());
  EXPECT_THAT(AlignIds(text, {}).segments, IsEmpty());
  EXPECT_THAT(AlignIds(text, {Ids()}).segments, IsEmpty());
  EXPECT_THAT(AlignIds(text, {text}, Options(MatchMode::kSemShareKv)).segments, IsEmpty());
}

TEST(AlignerTest, TheSamePromptMatchesAllButItsLastToken) {
  Prompts prompts(2);
  const Ids text = prompts.Text(500);
  for (const MatchMode mode :
       {MatchMode::kExactPrefix, MatchMode::kExact, MatchMode::kToken, MatchMode::kFuzzy}) {
    const Alignment alignment = AlignIds(text, {text}, Options(mode));
    EXPECT_THAT(alignment.segments, ElementsAre(Segment{0, 0, 0, 499, SegmentKind::kExact}));
    EXPECT_EQ(alignment.matched_tokens, 499);
  }
}

TEST(AlignerTest, ExactPrefixTakesTheSourceWithTheLongestOne) {
  Prompts prompts(3);
  const Ids text = prompts.Text(300);
  const Ids shorter = Join({Slice(text, 0, 100), prompts.Text(100)});
  const Ids longer = Join({Slice(text, 0, 200), {text[200] + 1}, Slice(text, 201, 300)});
  const Alignment alignment =
      AlignIds(text, {shorter, longer, prompts.Text(10)}, Options(MatchMode::kExactPrefix));
  EXPECT_THAT(alignment.segments, ElementsAre(Segment{0, 0, 0, 200, SegmentKind::kExact}));
  EXPECT_THAT(alignment.references, ElementsAre(1));
}

TEST(AlignerTest, AMovedDocumentIsOneRun) {
  Prompts prompts(4, 50000);
  const Ids document = prompts.Text(1000);
  const Ids source = Join({prompts.Text(37), document, prompts.Text(20)});
  const Ids target = Join({prompts.Text(211), document, prompts.Text(30)});
  const Alignment alignment = AlignIds(target, {source}, Options(MatchMode::kExact));
  ASSERT_EQ(alignment.segments.size(), 1u);
  EXPECT_EQ(alignment.segments[0].target_begin - alignment.segments[0].source_begin, 211 - 37);
  EXPECT_GE(alignment.segments[0].tokens, 1000);
}

TEST(AlignerTest, RunsShorterThanTheMinimumAreNotExactRuns) {
  const Ids run = {1, 2, 3, 4, 5, 6, 7, 8};
  const Ids other = {100, 101, 102, 103};
  const Ids target = Join({other, run, {55, 56}});
  EXPECT_THAT(AlignIds(target, {Join({{9}, run})}, Options(MatchMode::kExact)).segments,
              ElementsAre(Segment{4, 0, 1, 8, SegmentKind::kExact}));
  EXPECT_THAT(
      AlignIds(target, {Join({{9}, Slice(run, 0, 7)})}, Options(MatchMode::kExact)).segments,
      IsEmpty());
}

TEST(AlignerTest, RandomEditsStayValidAndCoverWhatAQuadraticSearchCovers) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Prompts prompts(seed, seed % 3 == 0 ? 3 : 200);
    const Ids source = prompts.Text(20 + prompts.Below(400));
    Ids target = prompts.Edited(source, 0.01 * static_cast<double>(seed % 12));
    if (seed % 4 == 1) target = prompts.Shuffled(target, 40);
    if (seed % 4 == 2) target = Join({prompts.Text(50), target});
    if (target.size() < 2) continue;
    const Alignment alignment = AlignIds(target, {source}, Options(MatchMode::kExact));
    ExpectValid(target, {source}, alignment);
    const int64_t coverable = CoverableTokens(target, source, 8);
    EXPECT_LE(alignment.matched_tokens, coverable + 7) << seed;  // and a short common prefix
    // A run that loses tokens to a longer one may fall below 8: never much in all.
    if (seed % 3 != 0) {
      EXPECT_GE(alignment.matched_tokens, coverable * 95 / 100) << seed;
    }
    ExpectValid(target, {source}, AlignIds(target, {source}, Options(MatchMode::kToken)));
  }
}

TEST(AlignerTest, SeveralReferencesWhenThatCoversMore) {
  Prompts prompts(6, 50000);
  const Ids first = prompts.Text(600);
  const Ids second = prompts.Text(500);
  const std::vector<Ids> sources = {prompts.Text(300), Join({prompts.Text(9), second}), first};
  const Ids target = Join({first, second, prompts.Text(20)});
  const Alignment alignment = AlignIds(target, sources);
  ExpectValid(target, sources, alignment);
  EXPECT_EQ(alignment.matched_tokens, 1100);
  EXPECT_THAT(alignment.references, ElementsAre(2, 1));  // numbered as they appear

  AlignOptions one;
  one.max_references = 1;
  EXPECT_THAT(AlignIds(target, sources, one).references, ElementsAre(2));
}

TEST(AlignerTest, AReferenceThatAddsLittleIsNotUsed) {
  Prompts prompts(7, 50000);
  const Ids text = prompts.Text(1000);
  const Ids extra = prompts.Text(20);
  const Ids target = Join({text, extra, prompts.Text(10)});
  EXPECT_THAT(AlignIds(target, {text, extra}).references, ElementsAre(0));
}

TEST(AlignerTest, TheCommonPrefixStaysWhereItIsExact) {
  Prompts prompts(8, 50000);
  const Ids header = prompts.Text(100);
  const Ids text = prompts.Text(400);
  // The source holds the header twice: at its start, and again right before the text.
  const Ids source = Join({header, prompts.Text(50), header, text});
  const Ids target = Join({header, text, prompts.Text(10)});
  const Alignment alignment = AlignIds(target, {source}, Options(MatchMode::kExact));
  EXPECT_THAT(alignment.segments, ElementsAre(Segment{0, 0, 0, 100, SegmentKind::kExact},
                                              Segment{100, 0, 250, 400, SegmentKind::kExact}));
}

TEST(AlignerTest, AShortCommonPrefixIsTakenFromASourceThatIsUsed) {
  Prompts prompts(9, 50000);
  const Ids text = prompts.Text(400);
  const Ids source = Join({{1, 2, 3}, text});
  const Ids target = Join({{1, 2, 3}, prompts.Text(60), text, {5, 6}});
  const Alignment alignment = AlignIds(target, {source}, Options(MatchMode::kExact));
  EXPECT_THAT(alignment.segments, ElementsAre(Segment{0, 0, 0, 3, SegmentKind::kExact},
                                              Segment{63, 0, 3, 400, SegmentKind::kExact}));
}

TEST(AlignerTest, RepeatedPassagesKeepOrderAndContinuity) {
  Prompts prompts(10, 50000);
  const Ids refrain = prompts.Text(20);
  Ids source;
  Ids target;
  for (int i = 0; i < 50; ++i) {
    const Ids verse = prompts.Text(30);
    source = Join({source, verse, refrain});
    // One word before each refrain is new, so that the refrain is a run of its own.
    target = Join({target, Slice(verse, 0, 29), {60000u + i}, refrain, {70000u + i}});
  }
  const Alignment alignment = AlignIds(target, {source}, Options(MatchMode::kExact));
  ExpectValid(target, {source}, alignment);
  int64_t last = -1;
  for (const Segment& segment : alignment.segments) {
    EXPECT_GT(segment.source_begin, last);
    last = segment.source_begin;
  }
  EXPECT_EQ(alignment.matched_tokens, 50 * 49);
}

TEST(AlignerTest, TokenFillRepairsReplacedWords) {
  Prompts prompts(11, 50000);
  const Ids source = prompts.Text(300);
  Ids target = source;
  for (size_t t = 20; t < target.size(); t += 5) target[t] = 60000 + static_cast<uint32_t>(t);
  // Only the first 20 tokens are a run.
  EXPECT_EQ(AlignIds(target, {source}, Options(MatchMode::kExact)).matched_tokens, 20);
  const Alignment alignment = AlignIds(target, {source}, Options(MatchMode::kToken));
  ExpectValid(target, {source}, alignment);
  const std::vector<int64_t> places = PlaceOfEach(alignment, 300);
  for (int64_t t = 0; t < 299; ++t) EXPECT_EQ(places[t], target[t] == source[t] ? t : -1) << t;
}

TEST(AlignerTest, ShortFillsCanBeRefused) {
  Prompts prompts(12, 50000);
  const Ids source = prompts.Text(100);
  Ids target = source;
  target[40] = 60000;
  target[42] = 60001;  // 41 alone between
  target[48] = 60002;  // 43..47: five tokens
  AlignOptions options;
  options.min_fill_tokens = 4;
  const std::vector<int64_t> places = PlaceOfEach(AlignIds(target, {source}, options), 100);
  EXPECT_EQ(places[41], -1);
  for (int64_t t = 43; t < 48; ++t) EXPECT_EQ(places[t], t);
  options.min_fill_tokens = 1;
  EXPECT_EQ(PlaceOfEach(AlignIds(target, {source}, options), 100)[41], 41);
}

TEST(AlignerTest, TagsMatchOnlyEqualTagsAtTheSamePlace) {
  Prompts prompts(13, 50000);
  const Ids before = prompts.Text(50);
  const Ids image(40, 7);  // every image has the same placeholder ids
  const Ids after = prompts.Text(50);
  const Ids source = Join({before, image, after});
  const Ids target = Join({before, image, after, {3}});
  const auto align = [&](const ContentTag& target_tag, const ContentTag& source_tag) {
    const std::vector<ContentTag> target_tags = {target_tag};
    const std::vector<ContentTag> source_tags = {source_tag};
    const PromptView view{target, target_tags};
    const PromptView source_view{source, source_tags};
    return Align(view, {source_view}, Options(MatchMode::kToken), nullptr);
  };
  EXPECT_EQ(align({50, 90, "cat"}, {50, 90, "cat"}).matched_tokens, 140);
  // Another image: nothing of it is taken, the text around it is.
  for (const ContentTag& other :
       {ContentTag{50, 90, "dog"}, ContentTag{50, 89, "cat"}, ContentTag{0, 0, "cat"}}) {
    const Alignment alignment = align({50, 90, "cat"}, other);
    const std::vector<int64_t> places = PlaceOfEach(alignment, 141);
    for (int64_t t = 50; t < 90; ++t) {
      EXPECT_EQ(places[t], -1) << other.digest << " " << t;
    }
    EXPECT_EQ(places[0], 0);
    EXPECT_EQ(places[100], 100);
  }
  // The image one token later: each of its tokens keeps its place within the tag.
  const std::vector<int64_t> later = PlaceOfEach(align({50, 90, "cat"}, {51, 91, "cat"}), 141);
  for (int64_t t = 50; t < 89; ++t) EXPECT_EQ(later[t], t + 1);
  // A tag beyond the prompt's ends does no harm.
  EXPECT_EQ(align({50, 1000, "cat"}, {-5, 0, "cat"}).matched_tokens, 50);
}

TEST(AlignerTest, AMovedImageKeepsItsRows) {
  Prompts prompts(14, 50000);
  const Ids image(40, 7);
  const Ids source = Join({prompts.Text(30), image, prompts.Text(30)});
  const Ids target = Join({prompts.Text(77), image, prompts.Text(10)});
  const std::vector<ContentTag> source_tags = {{30, 70, "cat"}};
  const std::vector<ContentTag> target_tags = {{77, 117, "cat"}};
  const PromptView source_view{source, source_tags};
  const Alignment alignment =
      Align({target, target_tags}, {source_view}, Options(MatchMode::kExact), nullptr);
  EXPECT_THAT(alignment.segments, ElementsAre(Segment{77, 0, 30, 40, SegmentKind::kExact}));
}

TEST(AlignerTest, FuzzyAnswersAreCheckedAndOneToOne) {
  Prompts prompts(15, 50000);
  const Ids head = prompts.Text(40);
  const Ids tail = prompts.Text(40);
  const Ids source = Join({head, {60001, 60002, 60003, 60004}, tail});
  const Ids target = Join({head, {70001, 70002, 70003, 70004}, tail, {5}});
  std::vector<FuzzyQuery> asked;
  std::vector<int64_t> answers;
  const FuzzyMatcher matcher = [&](absl::Span<const FuzzyQuery> queries) {
    asked.assign(queries.begin(), queries.end());
    return answers;
  };
  const auto align = [&] {
    return PlaceOfEach(Align(View(target), Views({source}), Options(MatchMode::kFuzzy), matcher),
                       85);
  };
  answers = {41, 41, 39, -1};  // the second is taken, the third lies outside
  std::vector<int64_t> places = align();
  EXPECT_THAT(std::vector<int64_t>(places.begin() + 40, places.begin() + 44),
              ElementsAre(41, -1, -1, -1));
  ASSERT_EQ(asked.size(), 4u);
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(asked[i].target, 40 + i);
    EXPECT_EQ(asked[i].predicted_source, 40 + i);
    EXPECT_EQ(asked[i].source_begin, 40);
    EXPECT_EQ(asked[i].source_end, 44);
  }
  answers = {};  // a matcher that gives up
  EXPECT_EQ(std::count(places.begin(), places.end(), -1), 4);
  places = align();
  EXPECT_EQ(std::count(places.begin(), places.end(), -1), 5);
}

TEST(AlignerTest, FuzzyLooksWhereTheMovedRunPredicts) {
  Prompts prompts(16, 50000);
  const Ids head = prompts.Text(100);
  const Ids source = Join({head, {60001}, prompts.Text(100)});
  const Ids target = Join({prompts.Text(300), head, {70001, 5}});
  std::vector<FuzzyQuery> asked;
  Align(View(target), Views({source}), Options(MatchMode::kFuzzy),
        [&](absl::Span<const FuzzyQuery> queries) {
          asked.assign(queries.begin(), queries.end());
          return std::vector<int64_t>(queries.size(), -1);
        });
  ASSERT_FALSE(asked.empty());
  EXPECT_EQ(asked.back().target, 400);
  EXPECT_EQ(asked.back().predicted_source, 100);
  EXPECT_EQ(asked.back().source_begin, 100);
  EXPECT_EQ(asked.back().source_end, 125);
}

TEST(AlignerTest, TaggedTokensAreNeverFuzzy) {
  Prompts prompts(17, 50000);
  const Ids head = prompts.Text(40);
  const Ids tail = prompts.Text(40);
  const Ids source = Join({head, {7, 7}, tail});
  const Ids target = Join({head, {7, 8}, tail, {5}});
  const std::vector<ContentTag> source_tags = {{41, 42, "cat"}};
  const std::vector<ContentTag> target_tags = {{40, 41, "dog"}};
  std::vector<int64_t> targets;
  const PromptView source_view{source, source_tags};
  const Alignment alignment =
      Align({target, target_tags}, {source_view}, Options(MatchMode::kFuzzy),
            [&](absl::Span<const FuzzyQuery> queries) {
              std::vector<int64_t> answers;
              for (const FuzzyQuery& query : queries) {
                targets.push_back(query.target);
                answers.push_back(41);
              }
              return answers;
            });
  EXPECT_THAT(targets, ElementsAre(41));
  EXPECT_EQ(alignment.matched_tokens, 80);
}

TEST(AlignerTest, TooManySegmentsKeepTheLongest) {
  Prompts prompts(18, 50000);
  Ids source;
  Ids target;
  for (int i = 0; i < 20; ++i) {
    const Ids run = prompts.Text(10 + i);
    source = Join({source, run, prompts.Text(3)});
    target = Join({target, run, {60000u + i}});
  }
  AlignOptions options = Options(MatchMode::kExact);
  options.max_segments = 5;
  const Alignment alignment = AlignIds(target, {source}, options);
  ExpectValid(target, {source}, alignment);
  EXPECT_EQ(alignment.segments.size(), 5u);
  EXPECT_GE(alignment.segments.front().tokens, 25);
  options.max_segments = 20;
  EXPECT_EQ(AlignIds(target, {source}, options).segments.size(), 20u);
}

}  // namespace
}  // namespace semshare
