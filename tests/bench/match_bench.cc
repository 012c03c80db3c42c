// Time of matching on the CPU: Align for pairs of prompts, and CandidateIndex::Query.
//
//   cmake --preset release && ninja -C build/release match_bench
//   build/release/tests/bench/match_bench [tokens references rounds]
//
// Defaults: 5000 1000 21. The references of the index have 4,000 tokens each. Each line is the
// median and the largest of the rounds. Expect 2 ms or less for an alignment of 5,000 x 5,000
// tokens (4 ms with eight sources, 10 ms for two symbols in random order, the worst case known)
// and about a millisecond for a query.
// Every alignment is verified (true equality of ids, order, coverage) before it is timed, and
// every query must find its reference.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/base/status_macros.h"
#include "server/match/aligner.h"
#include "server/match/candidate_index.h"
#include "server/match/embedding_space.h"

namespace semshare {
namespace {

using Ids = std::vector<uint32_t>;

struct Sizes {
  int64_t tokens = 5000;
  int64_t references = 1000;
  int rounds = 21;
};

constexpr uint32_t kVocab = 49152;

// Zipf-like ids, as in text: low ids are common.
Ids Text(std::mt19937_64& random, int64_t tokens, uint32_t vocab = kVocab) {
  Ids ids(tokens);
  for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % (1 + random() % vocab));
  return ids;
}

Ids Edited(std::mt19937_64& random, const Ids& ids, uint64_t one_in) {
  Ids edited;
  for (const uint32_t id : ids) {
    const uint64_t draw = random() % (3 * one_in);
    if (draw == 0) continue;
    edited.push_back(draw == 1 ? static_cast<uint32_t>(random() % kVocab) : id);
    if (draw == 2) edited.push_back(static_cast<uint32_t>(random() % kVocab));
  }
  return edited;
}

Ids Shuffled(std::mt19937_64& random, const Ids& ids, int64_t paragraph) {
  std::vector<Ids> paragraphs;
  for (auto at = ids.begin(); at < ids.end();) {
    const auto end = at + std::min<int64_t>(paragraph, ids.end() - at);
    paragraphs.emplace_back(at, end);
    at = end;
  }
  std::shuffle(paragraphs.begin(), paragraphs.end(), random);
  Ids shuffled;
  for (const Ids& one : paragraphs) shuffled.insert(shuffled.end(), one.begin(), one.end());
  return shuffled;
}

Ids Periodic(int64_t tokens, uint32_t period, uint32_t shift) {
  Ids ids(tokens);
  for (int64_t i = 0; i < tokens; ++i) ids[i] = static_cast<uint32_t>((i + shift) % period);
  return ids;
}

// A paragraph again and again, each time ended by a token of its own.
Ids Repeated(const Ids& paragraph, int64_t tokens, uint32_t first_end) {
  Ids ids;
  for (uint32_t end = first_end; static_cast<int64_t>(ids.size()) < tokens; ++end) {
    ids.insert(ids.end(), paragraph.begin(), paragraph.end());
    ids.push_back(end);
  }
  ids.resize(tokens);
  return ids;
}

void PrintTimes(const std::string& name, int rounds, const std::string& note,
                const std::function<void()>& work) {
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    times.push_back(time.count());
  }
  std::sort(times.begin(), times.end());
  std::printf("%-34s median %8.3f ms  max %8.3f ms  %s\n", name.c_str(), times[times.size() / 2],
              times.back(), note.c_str());
}

void Verify(const Ids& target, const std::vector<PromptView>& sources, const Alignment& alignment) {
  int64_t end = 0;
  for (const Segment& segment : alignment.segments) {
    SEMSHARE_CHECK(segment.target_begin >= end);
    end = segment.target_begin + segment.tokens;
    SEMSHARE_CHECK(end < static_cast<int64_t>(target.size()));
    const absl::Span<const uint32_t> source = sources[alignment.references[segment.reference]].ids;
    for (int64_t i = 0; i < segment.tokens; ++i) {
      SEMSHARE_CHECK(target[segment.target_begin + i] == source[segment.source_begin + i]);
    }
  }
}

void BenchAlign(const std::string& name, const Sizes& sizes, const Ids& target,
                const std::vector<Ids>& references) {
  std::vector<PromptView> sources;
  for (const Ids& ids : references) sources.push_back({ids, {}});
  const PromptView view{target, {}};
  const Alignment alignment = Align(view, sources, AlignOptions(), nullptr);
  Verify(target, sources, alignment);
  const std::string note = std::to_string(alignment.matched_tokens) + " of " +
                           std::to_string(target.size()) + " tokens in " +
                           std::to_string(alignment.segments.size()) + " segments";
  PrintTimes("align, " + name, sizes.rounds, note,
             [&] { Align(view, sources, AlignOptions(), nullptr); });
}

void BenchAligner(const Sizes& sizes) {
  std::mt19937_64 random(1);
  const int64_t n = sizes.tokens;
  const Ids source = Text(random, n);
  Ids moved = Text(random, n / 10);
  moved.insert(moved.end(), source.begin(), source.end() - n / 10);
  BenchAlign("moved", sizes, moved, {source});
  BenchAlign("5 % edited", sizes, Edited(random, source, 20), {source});
  BenchAlign("30 % edited", sizes, Edited(random, source, 3), {source});
  BenchAlign("shuffled by 100", sizes, Shuffled(random, source, 100), {source});
  BenchAlign("unrelated", sizes, Text(random, n), {source});
  std::vector<Ids> eight = {source};
  while (eight.size() < 8) eight.push_back(Edited(random, source, 10));
  BenchAlign("5 % edited, 8 sources", sizes, Edited(random, source, 20), eight);
  BenchAlign("all equal", sizes, Ids(n, 7), {Ids(n, 7)});
  BenchAlign("all equal, other lengths", sizes, Ids(n, 7), {Ids(n / 3, 7)});
  BenchAlign("period 3", sizes, Periodic(n, 3, 1), {Periodic(n, 3, 0)});
  BenchAlign("period 9", sizes, Periodic(n, 9, 1), {Periodic(n, 9, 0)});
  BenchAlign("two symbols", sizes, Text(random, n, 2), {Text(random, n, 2)});
  const Ids paragraph = Text(random, 50);
  BenchAlign("repeated paragraph", sizes, Repeated(paragraph, n, 100000),
             {Repeated(paragraph, n, 200000)});
}

void BenchIndex(const Sizes& sizes) {
  constexpr int64_t kReferenceTokens = 4000;
  constexpr int32_t kWidth = 64;
  std::mt19937_64 random(2);
  auto backend = NewCpuBackend(CpuBackendOptions());
  SEMSHARE_CHECK(backend.ok());
  std::vector<float> table(int64_t{kVocab} * kWidth);
  for (float& value : table) value = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
  auto space = EmbeddingSpace::Create({kVocab, kWidth, 1}, table, DefaultTokenWeights(kVocab),
                                      backend->get());
  auto index = CandidateIndex::Create(CandidateIndexOptions(), backend->get());
  SEMSHARE_CHECK(space.ok() && index.ok());
  const Ids preamble = Text(random, 500);
  std::vector<Ids> references;
  std::vector<std::vector<uint64_t>> signatures;
  for (int64_t i = 0; i < sizes.references; ++i) {
    Ids ids = preamble;
    const Ids body = Text(random, kReferenceTokens - 500);
    ids.insert(ids.end(), body.begin(), body.end());
    references.push_back(std::move(ids));
    signatures.push_back(*(*space)->Signatures(references.back()));
  }
  size_t added = 0;
  PrintTimes("index add", static_cast<int>(sizes.references), "", [&] {
    const ReferenceId id{7, added};
    SEMSHARE_CHECK((*index)->Add(id, references[added], signatures[added]).ok());
    ++added;
  });
  const CandidateIndexStats stats = (*index)->stats();
  std::printf("  %lld references, %lld grams, %.1f MB\n", static_cast<long long>(stats.references),
              static_cast<long long>(stats.grams), static_cast<double>(stats.bytes) / 1e6);

  const auto bench = [&](const std::string& name, const Ids& target, int64_t wanted) {
    const std::vector<uint64_t> codes = *(*space)->Signatures(target);
    const auto candidates = (*index)->Query(target, codes);
    SEMSHARE_CHECK(candidates.ok());
    const bool found =
        std::any_of(candidates->begin(), candidates->end(), [&](const Candidate& candidate) {
          return candidate.id == ReferenceId{7, static_cast<uint64_t>(wanted)};
        });
    SEMSHARE_CHECK(wanted < 0 || found);
    PrintTimes("query, " + name, sizes.rounds, "",
               [&] { SEMSHARE_CHECK((*index)->Query(target, codes).ok()); });
  };
  const int64_t wanted = sizes.references / 2;
  bench("5 % edited", Edited(random, references[wanted], 20), wanted);
  bench(
      "moved",
      [&] {
        Ids target = Text(random, 400);
        target.insert(target.end(), references[wanted].begin(), references[wanted].end());
        return target;
      }(),
      wanted);
  bench("unrelated", Text(random, kReferenceTokens), -1);
  PrintTimes("signatures of a prompt", sizes.rounds, "",
             [&] { SEMSHARE_CHECK((*space)->Signatures(references[0]).ok()); });
}

}  // namespace
}  // namespace semshare

int main(int argc, char** argv) {
  semshare::Sizes sizes;
  if (argc > 1) sizes.tokens = std::max(100L, std::atol(argv[1]));
  if (argc > 2) sizes.references = std::max(1L, std::atol(argv[2]));
  if (argc > 3) sizes.rounds = std::max(1, std::atoi(argv[3]));
  semshare::BenchAligner(sizes);
  semshare::BenchIndex(sizes);
  return 0;
}
