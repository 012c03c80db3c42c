#include "server/match/candidate_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "server/match/embedding_space.h"
#include "tests/server/match/backends.h"
#include "tests/server/match/prompts.h"

namespace semshare {
namespace {

using testing::IsEmpty;

ReferenceId Id(uint64_t number) { return {1, number}; }

std::vector<uint64_t> Numbers(const std::vector<Candidate>& candidates) {
  std::vector<uint64_t> numbers;
  for (const Candidate& candidate : candidates) numbers.push_back(candidate.id.low);
  return numbers;
}

class CandidateIndexTest : public testing::TestWithParam<TestBackend> {
 protected:
  static constexpr int64_t kVocab = 4000;
  static constexpr int32_t kWidth = 64;

  // Ids 2k and 2k + 1 are two words for the same thing.
  CandidateIndexTest() {
    std::mt19937_64 random(1);
    std::vector<float> table(kVocab * kWidth);
    for (int64_t id = 0; id < kVocab; ++id) {
      for (int j = 0; j < kWidth; ++j) {
        const double value = static_cast<double>(random() >> 11) * 0x1p-52 - 1.0;
        table[id * kWidth + j] =
            id % 2 == 0 ? static_cast<float>(value)
                        : table[(id - 1) * kWidth + j] + 0.1f * static_cast<float>(value);
      }
    }
    space_ = *EmbeddingSpace::Create({kVocab, kWidth, 5}, table, DefaultTokenWeights(kVocab),
                                     backend_.get());
    index_ = *CandidateIndex::Create(CandidateIndexOptions(), backend_.get());
  }

  std::vector<uint64_t> Signatures(const Ids& ids) { return *space_->Signatures(ids); }

  void Add(uint64_t number, const Ids& ids) {
    const absl::Status status = index_->Add(Id(number), ids, Signatures(ids));
    ASSERT_TRUE(status.ok()) << status;
  }

  std::vector<Candidate> Query(const Ids& ids) {
    const auto candidates = index_->Query(ids, Signatures(ids));
    EXPECT_TRUE(candidates.ok()) << candidates.status();
    return *candidates;
  }

  // Every word replaced by its synonym.
  static Ids Reworded(Ids ids) {
    for (uint32_t& id : ids) id ^= 1;
    return ids;
  }

  std::unique_ptr<Backend> backend_ = NewTestBackend(GetParam());
  std::unique_ptr<EmbeddingSpace> space_;
  std::unique_ptr<CandidateIndex> index_;
  Prompts prompts_{7, kVocab};
};

TEST_P(CandidateIndexTest, FindsSharedContentAtAnyOffsetBestFirst) {
  const Ids text = prompts_.Text(1000);
  Add(1, Join({prompts_.Text(100), text}));
  Add(2, Join({prompts_.Text(300), Slice(text, 200, 500), prompts_.Text(100)}));
  for (uint64_t i = 10; i < 30; ++i) Add(i, prompts_.Text(800));
  const std::vector<Candidate> candidates = Query(Join({prompts_.Text(250), text}));
  ASSERT_GE(candidates.size(), 2u);
  EXPECT_LE(candidates.size(), 8u);
  EXPECT_EQ(candidates[0].id, Id(1));
  EXPECT_NEAR(candidates[0].gram_tokens, 1000, 40);
  EXPECT_EQ(candidates[1].id, Id(2));
  EXPECT_NEAR(candidates[1].gram_tokens, 300, 40);
  EXPECT_LT(candidates[0].signature_distance, 96);
}

TEST_P(CandidateIndexTest, FindsTheSameMeaningInOtherWords) {
  const Ids text = prompts_.Text(600);
  Add(1, text);
  for (uint64_t i = 10; i < 40; ++i) Add(i, prompts_.Text(600));
  const std::vector<Candidate> candidates = Query(Reworded(text));
  ASSERT_FALSE(candidates.empty());
  EXPECT_EQ(candidates[0].id, Id(1));
  EXPECT_EQ(candidates[0].gram_tokens, 0);
  EXPECT_LT(candidates[0].signature_distance, 40);
  for (size_t i = 1; i < candidates.size(); ++i) {
    EXPECT_GT(candidates[i].signature_distance, candidates[0].signature_distance);
  }
}

TEST_P(CandidateIndexTest, WindowsFindAPassageOfAnotherPrompt) {
  const Ids passage = prompts_.Text(256);
  Add(1, Join({prompts_.Text(2560), passage, prompts_.Text(1024)}));
  for (uint64_t i = 10; i < 20; ++i) Add(i, prompts_.Text(2000));
  const Ids target = Join({prompts_.Text(512), Reworded(passage)});
  EXPECT_THAT(Numbers(Query(target)), testing::Contains(1u));
}

TEST_P(CandidateIndexTest, MeaningKeepsAPlaceBesideManySharers) {
  const Ids preamble = prompts_.Text(300);
  const Ids text = prompts_.Text(900);
  for (uint64_t i = 10; i < 60; ++i) Add(i, Join({preamble, prompts_.Text(300)}));
  Add(1, text);
  const std::vector<Candidate> candidates = Query(Join({preamble, Reworded(text)}));
  EXPECT_LE(candidates.size(), 8u);
  EXPECT_THAT(Numbers(candidates), testing::Contains(1u));
  for (size_t i = 1; i < candidates.size(); ++i) {
    EXPECT_GE(candidates[i - 1].gram_tokens, candidates[i].gram_tokens);
  }
}

TEST_P(CandidateIndexTest, AddingAgainReplacesAndRemovingForgets) {
  const Ids first = prompts_.Text(400);
  const Ids second = prompts_.Text(400);
  ASSERT_TRUE(index_->Add(Id(1), second, Signatures(first)).ok());
  EXPECT_GT(Query(second)[0].signature_distance, 0);
  const int64_t grams = index_->stats().grams;
  Add(1, second);
  Add(1, second);
  EXPECT_EQ(index_->stats().references, 1);
  EXPECT_EQ(index_->stats().grams, grams);
  ASSERT_EQ(Query(second).size(), 1u);
  EXPECT_NEAR(Query(second)[0].gram_tokens, 400, 40);
  EXPECT_EQ(Query(second)[0].signature_distance, 0);
  // An id stands for its token ids.
  EXPECT_TRUE(absl::IsInvalidArgument(index_->Add(Id(1), first, Signatures(first))));
  EXPECT_TRUE(absl::IsInvalidArgument(index_->Remove(Id(1), first)));
  EXPECT_EQ(Query(second).size(), 1u);
  EXPECT_TRUE(index_->Remove(Id(2), first).ok());
  EXPECT_TRUE(index_->Remove(Id(1), second).ok());
  EXPECT_TRUE(index_->Remove(Id(1), second).ok());
  EXPECT_THAT(Query(second), IsEmpty());
  EXPECT_EQ(index_->stats().references, 0);
  EXPECT_EQ(index_->stats().grams, 0);
  Add(3, first);  // takes the free slot
  EXPECT_EQ(Numbers(Query(first)), std::vector<uint64_t>{3});
}

TEST_P(CandidateIndexTest, WhatIsRemovedCanBeAddedAgain) {
  std::vector<Ids> texts;
  for (uint64_t i = 0; i < 30; ++i) texts.push_back(prompts_.Text(300));
  for (uint64_t i = 0; i < 30; ++i) Add(i, texts[i]);
  const int64_t grams = index_->stats().grams;
  const int64_t bytes = index_->stats().bytes;
  for (int round = 0; round < 3; ++round) {
    for (uint64_t i = 0; i < 30; ++i) ASSERT_TRUE(index_->Remove(Id(i), texts[i]).ok());
    EXPECT_EQ(index_->stats().grams, 0);
    for (uint64_t i = 0; i < 30; ++i) Add(i, texts[29 - i]);
    for (uint64_t i = 0; i < 30; ++i) EXPECT_EQ(Query(texts[i])[0].id, Id(29 - i));
    std::reverse(texts.begin(), texts.end());
  }
  EXPECT_EQ(index_->stats().grams, grams);
  EXPECT_EQ(index_->stats().bytes, bytes);  // slots, rows and places are used again
}

TEST_P(CandidateIndexTest, MeaningIsAskedOnlyWhereGramsDoNotCover) {
  const Ids text = prompts_.Text(1000);
  Add(1, Join({prompts_.Text(100), text}));
  Add(2, Slice(text, 0, 500));
  Add(3, text);  // as much of it as the first
  for (uint64_t i = 10; i < 30; ++i) Add(i, prompts_.Text(800));
  int asked = 0;
  const auto query = [&](const Ids& ids) {
    const auto candidates = index_->QueryOnDemand(ids, [&] {
      ++asked;
      return space_->Signatures(ids);
    });
    EXPECT_TRUE(candidates.ok()) << candidates.status();
    return Numbers(*candidates);
  };
  EXPECT_THAT(query(Join({prompts_.Text(50), text})), testing::UnorderedElementsAre(1u, 3u));
  EXPECT_EQ(asked, 0);
  const Ids mixed = Join({Slice(text, 0, 800), Reworded(Slice(text, 800, 1000))});
  EXPECT_EQ(query(mixed), Numbers(Query(mixed)));
  EXPECT_EQ(asked, 1);
  const auto failed =
      index_->QueryOnDemand(Reworded(text), []() -> absl::StatusOr<std::vector<uint64_t>> {
        return absl::ResourceExhaustedError("no lane");
      });
  EXPECT_TRUE(absl::IsResourceExhausted(failed.status()));
}

TEST_P(CandidateIndexTest, WorksWithoutSignatures) {
  const Ids text = prompts_.Text(400);
  ASSERT_TRUE(index_->Add(Id(1), text, {}).ok());
  const auto candidates = index_->Query(text, {});
  ASSERT_TRUE(candidates.ok());
  ASSERT_EQ(candidates->size(), 1u);
  EXPECT_EQ((*candidates)[0].signature_distance, 256);
  EXPECT_EQ(Query(text).size(), 1u);
}

TEST_P(CandidateIndexTest, RefusesWhatDoesNotFit) {
  const Ids text = prompts_.Text(400);
  EXPECT_FALSE(index_->Add(Id(1), {}, {}).ok());
  EXPECT_FALSE(index_->Query({}, {}).ok());
  const std::vector<uint64_t> signatures = Signatures(text);
  EXPECT_FALSE(index_->Add(Id(1), text, absl::MakeConstSpan(signatures).first(4)).ok());
  EXPECT_FALSE(index_->Query(text, absl::MakeConstSpan(signatures).first(4)).ok());
  EXPECT_EQ(index_->stats().references, 0);
}

TEST_P(CandidateIndexTest, ReadersAndWritersTogether) {
  const Ids fixed = prompts_.Text(300);
  Add(1, fixed);
  const std::vector<uint64_t> signatures = Signatures(fixed);
  std::vector<Ids> texts;
  std::vector<std::vector<uint64_t>> codes;
  for (int i = 0; i < 40; ++i) {
    texts.push_back(Join({Slice(fixed, 0, 100), prompts_.Text(200)}));
    codes.push_back(Signatures(texts.back()));
  }
  const auto write = [&](size_t first) {
    for (size_t i = first; i < texts.size(); i += 2) {
      EXPECT_TRUE(index_->Add(Id(100 + i), texts[i], codes[i]).ok());
      if (i % 4 >= 2) continue;
      EXPECT_TRUE(index_->Remove(Id(100 + i), texts[i]).ok());
    }
  };
  const auto read = [&] {
    for (int i = 0; i < 30; ++i) {
      const auto candidates = index_->Query(fixed, signatures);
      ASSERT_TRUE(candidates.ok()) << candidates.status();
      ASSERT_FALSE(candidates->empty());
      EXPECT_EQ((*candidates)[0].id, Id(1));
    }
  };
  std::thread threads[] = {std::thread(write, 0), std::thread(write, 1), std::thread(read),
                           std::thread(read)};
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(index_->stats().references, 21);
  EXPECT_GT(index_->stats().bytes, 0);
}

INSTANTIATE_TEST_SUITE_P(All, CandidateIndexTest,
                         testing::Values(TestBackend::kCpu, TestBackend::kLate), BackendName);

// Many references, with random ids and codes.
class ManyReferencesTest : public testing::Test {
 protected:
  static std::unique_ptr<CandidateIndex> NewIndex(Backend* backend, uint64_t gram_key = 0) {
    CandidateIndexOptions options;
    options.gram_key = gram_key;
    return *CandidateIndex::Create(options, backend);
  }

  static Ids RandomIds(std::mt19937_64& random, int64_t tokens) {
    Ids ids(tokens);
    for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 50000);
    return ids;
  }
  static std::vector<uint64_t> RandomCodes(std::mt19937_64& random, int64_t tokens) {
    const int64_t windows = (tokens + kSignatureWindowTokens - 1) / kSignatureWindowTokens;
    std::vector<uint64_t> codes((1 + windows) * kSignatureWords);
    for (uint64_t& word : codes) word = random();
    return codes;
  }

  std::unique_ptr<Backend> backend_ = NewTestBackend(TestBackend::kCpu);
  std::unique_ptr<CandidateIndex> index_ = NewIndex(backend_.get());
};

TEST_F(ManyReferencesTest, APreambleOfAHundredThousandDoesNotHideTheRightOne) {
  constexpr uint64_t kReferences = 100000;
  std::mt19937_64 random(1);
  const Ids preamble = RandomIds(random, 80);
  std::vector<Ids> wanted;
  for (uint64_t i = 0; i < kReferences; ++i) {
    const Ids ids = Join({preamble, RandomIds(random, 60)});
    ASSERT_TRUE(index_->Add(Id(i), ids, {}).ok());
    if (i % 9999 == 0) wanted.push_back(ids);
  }
  // Nothing of the preamble is listed for more than the cap, so that it costs no memory.
  const CandidateIndexStats stats = index_->stats();
  EXPECT_LT(stats.grams, static_cast<int64_t>(10 * kReferences));
  EXPECT_LT(stats.bytes, static_cast<int64_t>(300 * kReferences));
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto candidates = index_->Query(wanted[i], {});
    ASSERT_TRUE(candidates.ok());
    EXPECT_LE(candidates->size(), 8u);
    EXPECT_THAT(Numbers(*candidates), testing::Contains(9999 * i));
  }
}

TEST_F(ManyReferencesTest, IndexesAreSeparate) {
  std::mt19937_64 random(2);
  const std::unique_ptr<CandidateIndex> other = NewIndex(backend_.get(), 1);
  const Ids ids = RandomIds(random, 300);
  const std::vector<uint64_t> codes = RandomCodes(random, 300);
  ASSERT_TRUE(index_->Add(Id(1), ids, codes).ok());
  EXPECT_THAT(*other->Query(ids, codes), IsEmpty());
  ASSERT_TRUE(other->Remove(Id(1), ids).ok());
  EXPECT_EQ(Numbers(*index_->Query(ids, codes)), std::vector<uint64_t>{1});
}

// Slabs appear, tables grow and slots are used again while queries run; more windows than are
// scanned one by one.
TEST_F(ManyReferencesTest, GrowsWhileReadersRun) {
  constexpr int64_t kTokens = 60;
  constexpr uint64_t kReferences = 10000;
  std::mt19937_64 random(3);
  const Ids fixed = RandomIds(random, 300);
  const std::vector<uint64_t> fixed_codes = RandomCodes(random, 300);
  ASSERT_TRUE(index_->Add(Id(kReferences), fixed, fixed_codes).ok());
  const auto write = [&](uint64_t first) {
    std::mt19937_64 own(first);
    for (uint64_t i = first; i < kReferences; i += 2) {
      const Ids ids = RandomIds(own, kTokens);
      ASSERT_TRUE(index_->Add(Id(i), ids, RandomCodes(own, kTokens)).ok());
      if (i % 10 >= 2) continue;
      ASSERT_TRUE(index_->Remove(Id(i), ids).ok());
    }
  };
  const auto read = [&] {
    for (int i = 0; i < 100; ++i) {
      const auto candidates = index_->Query(fixed, fixed_codes);
      ASSERT_TRUE(candidates.ok()) << candidates.status();
      ASSERT_FALSE(candidates->empty());
      EXPECT_EQ((*candidates)[0].id, Id(kReferences));
      EXPECT_EQ((*candidates)[0].signature_distance, 0);
    }
  };
  std::thread threads[] = {std::thread(write, 0), std::thread(write, 1), std::thread(read),
                           std::thread(read)};
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(index_->stats().references, static_cast<int64_t>(kReferences * 8 / 10 + 1));

  for (uint64_t i = 0; i < 500; ++i) {
    const Ids ids = RandomIds(random, kTokens);
    ASSERT_TRUE(index_->Add(Id(20000 + i), ids, RandomCodes(random, kTokens)).ok());
  }
  // Nothing but a window in common, and eight of its bits differ.
  std::vector<uint64_t> codes = RandomCodes(random, 300);
  for (int w = 0; w < kSignatureWords; ++w) codes[4 + w] = fixed_codes[8 + w] ^ 0x10000000010;
  const auto candidates = index_->Query(RandomIds(random, 300), codes);
  ASSERT_TRUE(candidates.ok());
  EXPECT_THAT(Numbers(*candidates), testing::Contains(kReferences));
}

TEST(CandidateIndexOptionsTest, ValidateNamesTheField) {
  EXPECT_TRUE(CandidateIndexOptions().Validate().ok());
  const auto message = [](auto change) {
    CandidateIndexOptions options;
    change(options);
    return std::string(options.Validate().message());
  };
  EXPECT_THAT(message([](auto& o) { o.gram_tokens = 0; }), testing::HasSubstr("gram_tokens"));
  EXPECT_THAT(message([](auto& o) { o.winnow_window = 1025; }),
              testing::HasSubstr("winnow_window"));
  EXPECT_THAT(message([](auto& o) { o.gram_reference_cap = 0; }),
              testing::HasSubstr("gram_reference_cap"));
  EXPECT_THAT(message([](auto& o) { o.max_candidates = 65; }),
              testing::HasSubstr("max_candidates"));
  EXPECT_THAT(message([](auto& o) { o.max_signature_distance = 257; }),
              testing::HasSubstr("max_signature_distance"));
}

}  // namespace
}  // namespace semshare
