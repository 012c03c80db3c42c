// The candidate index with many references: memory, and time of queries beside puts and deletes.
//
//   ninja -C build/release index_bench
//   build/release/tests/bench/index_bench [--references=1000000] [--seconds=20] [--json=FILE]
//
// A reference has 2,000 tokens: a preamble of 400 that all references share, and a text that nine
// others of its family have, too, each with one token in 20 changed. Ids and codes are made from
// numbers again whenever they are needed, so that the process holds nothing but the index. Two
// clients ask one query of 4,000 tokens after another, each time of another kind, while a third
// thread adds and removes 100 references a second. The time of a query includes the signatures of
// its tokens, where the index asks for them, but not alignment (match_bench).
//
// Before anything is timed, queries of each kind must find their reference among the candidates.
//
//   build/release/tests/bench/index_bench --codes=1000000 --dump=FOLDER
//
// measures the scan of prompt codes alone, on one thread, and leaves codes and queries in the
// folder for lsh_bench.py, which prints FAISS beside it.
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/backend.h"
#include "kernels/base/status_macros.h"
#include "server/match/candidate_index.h"
#include "server/match/embedding_space.h"
#include "server/match/mix.h"
#include "server/match/signature_index.h"

ABSL_FLAG(int64_t, references, 1000000, "references in the index");
ABSL_FLAG(int64_t, seconds, 20, "how long the clients ask");
ABSL_FLAG(int64_t, codes, 0, "measure the scan of this many prompt codes instead");
ABSL_FLAG(std::string, dump, "", "with --codes: the folder to leave codes and queries in");
ABSL_FLAG(std::string, json, "", "append a line for each figure to this file");

namespace semshare {
namespace {

using Ids = std::vector<uint32_t>;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kVocab = 49152;
constexpr int64_t kPreambleTokens = 400;
constexpr int64_t kReferenceTokens = 2000;
constexpr int64_t kQueryTokens = 4000;
constexpr uint64_t kFamily = 10;
constexpr double kByteBudget = 2560;
constexpr double kQueryBudgetMs = 5;

// Time of this thread on a core, which other work on the machine hardly changes.
double CpuMs() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

double MsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

// A number from numbers.
uint64_t From(uint64_t a, uint64_t b, uint64_t c = 0) { return Mix(Mix(Mix(a + 1) ^ b) + c); }

// A word of bits each of which is set once in 2^halvings.
uint64_t Sparse(uint64_t seed, int halvings) {
  uint64_t word = From(seed, 0);
  for (int i = 1; i < halvings; ++i) word &= From(seed, static_cast<uint64_t>(i));
  return word;
}

// Ids as in text: low ones are common.
uint32_t TokenOf(uint64_t draw) {
  return static_cast<uint32_t>((draw & 0xffffffff) % (1 + (draw >> 32) % kVocab));
}

void AppendFresh(uint64_t seed, int64_t tokens, Ids* ids) {
  for (int64_t i = 0; i < tokens; ++i) {
    ids->push_back(TokenOf(From(seed, static_cast<uint64_t>(i))));
  }
}

void AppendPreamble(Ids* ids) { AppendFresh(~uint64_t{0}, kPreambleTokens, ids); }

void AppendText(uint64_t number, Ids* ids) {
  const auto end = static_cast<uint64_t>(kReferenceTokens - kPreambleTokens);
  for (uint64_t i = 0; i < end; ++i) {
    const uint64_t own = From(number, i, 1);
    ids->push_back(TokenOf(own % 20 == 0 ? From(own, 0) : From(number / kFamily, i, 2)));
  }
}

Ids ReferenceIds(uint64_t number) {
  Ids ids;
  AppendPreamble(&ids);
  AppendText(number, &ids);
  return ids;
}

// Codes of a family lie near each other; the first window is the preamble's, the same for all.
std::vector<uint64_t> ReferenceCodes(uint64_t number) {
  constexpr int64_t kWindows =
      (kReferenceTokens + kSignatureWindowTokens - 1) / kSignatureWindowTokens;
  std::vector<uint64_t> codes((1 + kWindows) * kSignatureWords);
  for (size_t i = 0; i < codes.size(); ++i) {
    const bool preamble = i / kSignatureWords == 1;
    codes[i] = preamble ? From(3, i) : From(number / kFamily, i, 4);
    if (!preamble) codes[i] ^= Sparse(From(number, i, 5), 4);
  }
  return codes;
}

ReferenceId IdOf(uint64_t number) { return {From(number, 6), number}; }

enum class Kind { kShifted, kEdited, kReworded, kUnrelated };
constexpr std::array<const char*, 4> kKinds = {"shifted", "edited", "reworded", "unrelated"};

struct Query {
  Ids ids;
  std::vector<uint64_t> codes;
  ReferenceId right;
};

Query MakeQuery(Kind kind, uint64_t reference, uint64_t seed) {
  Query query;
  query.right = IdOf(reference);
  query.codes.resize((1 + (kQueryTokens + kSignatureWindowTokens - 1) / kSignatureWindowTokens) *
                     kSignatureWords);
  for (size_t i = 0; i < query.codes.size(); ++i) query.codes[i] = From(seed, i, 7);
  AppendPreamble(&query.ids);
  AppendFresh(From(seed, 8), 333, &query.ids);
  if (kind == Kind::kShifted || kind == Kind::kEdited) {
    const size_t begin = query.ids.size();
    AppendText(reference, &query.ids);
    for (size_t i = begin; kind == Kind::kEdited && i < query.ids.size(); ++i) {
      const uint64_t draw = From(seed, i, 9);
      if (draw % 20 == 0) query.ids[i] = TokenOf(From(draw, 0));
    }
  }
  if (kind == Kind::kReworded) {
    const std::vector<uint64_t> meant = ReferenceCodes(reference);
    for (int i = 0; i < kSignatureWords; ++i) {
      query.codes[i] = meant[i] ^ Sparse(From(seed, static_cast<uint64_t>(i), 10), 3);
    }
  }
  AppendFresh(From(seed, 11), kQueryTokens - static_cast<int64_t>(query.ids.size()), &query.ids);
  return query;
}

double ResidentBytes() {
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// A figure on the screen and, if asked for, in the file; a limit of 0 is none.
void Report(const std::string& name, double value, const char* unit, double limit, int64_t runs) {
  const std::string bound = limit > 0 ? absl::StrFormat("limit %10.3f", limit) : "";
  std::printf("%-36s %12.3f %-10s %s\n", name.c_str(), value, unit, bound.c_str());
  std::fflush(stdout);
  const std::string path = absl::GetFlag(FLAGS_json);
  if (path.empty()) return;
  std::ofstream(path, std::ios::app) << absl::StrFormat(
      "{\"bench\": \"index\", \"case\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"limit\": "
      "\"%s\", \"limit_value\": %s, \"ratio\": %s, \"runs\": %d}\n",
      name, value, unit, limit > 0 ? "budget" : "",
      limit > 0 ? absl::StrFormat("%.6g", limit) : "null",
      limit > 0 ? absl::StrFormat("%.4g", value / limit) : "null", runs);
}

void ReportTimes(const std::string& name, std::vector<double> times, double p99_limit) {
  if (times.empty()) return;
  std::sort(times.begin(), times.end());
  const auto runs = static_cast<int64_t>(times.size());
  Report(name + " p50", times[times.size() / 2], "ms", 0, runs);
  Report(name + " p99", times[times.size() * 99 / 100], "ms", p99_limit, runs);
  Report(name + " max", times.back(), "ms", 0, runs);
}

class IndexBench {
 public:
  IndexBench(int64_t references, Backend* backend) : references_(references) {
    constexpr int32_t kWidth = 64;
    std::mt19937_64 random(2);
    std::vector<float> table(int64_t{kVocab} * kWidth);
    for (float& value : table) value = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
    auto space =
        EmbeddingSpace::Create({kVocab, kWidth, 1}, table, DefaultTokenWeights(kVocab), backend);
    auto index = CandidateIndex::Create(CandidateIndexOptions(), backend);
    SEMSHARE_CHECK(space.ok() && index.ok());
    space_ = *std::move(space);
    index_ = *std::move(index);
  }

  void Build();
  void Verify();
  void Ask(int64_t seconds);

 private:
  std::vector<Candidate> Find(const Query& query);
  struct Times {
    std::array<std::vector<double>, 4> of_kind;
    std::vector<double> cpu;
  };

  void Client(uint64_t seed, Clock::time_point end, Times* times);
  void Change(Clock::time_point end, std::vector<double>* adds, std::vector<double>* removes);

  const int64_t references_;
  std::unique_ptr<EmbeddingSpace> space_;
  std::unique_ptr<CandidateIndex> index_;
};

void IndexBench::Build() {
  constexpr int kThreads = 2;
  const double before = ResidentBytes();
  const auto begin = Clock::now();
  const auto build = [&](int64_t first) {
    for (int64_t i = first; i < references_; i += kThreads) {
      const auto number = static_cast<uint64_t>(i);
      const absl::Status added =
          index_->Add(IdOf(number), ReferenceIds(number), ReferenceCodes(number));
      SEMSHARE_CHECK(added.ok());
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) threads.emplace_back(build, t);
  for (std::thread& thread : threads) thread.join();
  const double seconds = MsSince(begin) / 1e3;
  const CandidateIndexStats stats = index_->stats();
  SEMSHARE_CHECK(stats.references == references_);
  const auto count = static_cast<double>(references_);
  Report("references", count, "", 0, 1);
  Report("build", seconds, "s", 0, 1);
  Report("distinct grams per reference", static_cast<double>(stats.grams) / count, "", 0, 1);
  Report("bytes per reference", static_cast<double>(stats.bytes) / count, "bytes", kByteBudget, 1);
  Report("resident bytes per reference", (ResidentBytes() - before) / count, "bytes", 0, 1);
}

std::vector<Candidate> IndexBench::Find(const Query& query) {
  const auto candidates =
      index_->QueryOnDemand(query.ids, [&]() -> absl::StatusOr<std::vector<uint64_t>> {
        // For their time: the codes of simulated ids are simulated, too.
        SEMSHARE_RETURN_IF_ERROR(space_->Signatures(query.ids).status());
        return query.codes;
      });
  SEMSHARE_CHECK(candidates.ok());
  return *candidates;
}

void IndexBench::Verify() {
  constexpr uint64_t kQueries = 200;
  for (const Kind kind : {Kind::kShifted, Kind::kEdited, Kind::kReworded}) {
    int64_t found = 0;
    for (uint64_t i = 0; i < kQueries; ++i) {
      const uint64_t reference = From(i, 12) % static_cast<uint64_t>(references_);
      const Query query = MakeQuery(kind, reference, From(i, 13));
      const std::vector<Candidate> candidates = Find(query);
      found += std::any_of(candidates.begin(), candidates.end(),
                           [&](const Candidate& one) { return one.id == query.right; })
                   ? 1
                   : 0;
    }
    const double share = static_cast<double>(found) / kQueries;
    Report(absl::StrCat("found, ", kKinds[static_cast<size_t>(kind)]), share, "share", 0, kQueries);
    SEMSHARE_CHECK(share >= 0.98);
  }
}

void IndexBench::Client(uint64_t seed, Clock::time_point end, Times* times) {
  for (uint64_t i = 0; Clock::now() < end; ++i) {
    const uint64_t reference = From(seed, i, 14) % static_cast<uint64_t>(references_);
    const Query query = MakeQuery(static_cast<Kind>(i % 4), reference, From(seed, i, 15));
    const double cpu_begin = CpuMs();
    const auto begin = Clock::now();
    Find(query);
    times->of_kind[i % 4].push_back(MsSince(begin));
    times->cpu.push_back(CpuMs() - cpu_begin);
  }
}

// A hundred changes a second: a new reference, then an old one goes.
void IndexBench::Change(Clock::time_point end, std::vector<double>* adds,
                        std::vector<double>* removes) {
  const auto count = static_cast<uint64_t>(references_);
  auto next = Clock::now();
  for (uint64_t i = 0; next < end; ++i) {
    const uint64_t number = i % 2 == 0 ? count + i / 2 : From(i, 16) % count;
    const Ids ids = ReferenceIds(number);
    const std::vector<uint64_t> codes = ReferenceCodes(number);
    const auto begin = Clock::now();
    if (i % 2 == 0) {
      SEMSHARE_CHECK(index_->Add(IdOf(number), ids, codes).ok());
    } else {
      SEMSHARE_CHECK(index_->Remove(IdOf(number), ids).ok());
    }
    (i % 2 == 0 ? adds : removes)->push_back(MsSince(begin));
    next += std::chrono::milliseconds(10);
    std::this_thread::sleep_until(next);
  }
}

void IndexBench::Ask(int64_t seconds) {
  constexpr size_t kClients = 2;
  std::array<Times, kClients> times;
  std::vector<double> adds, removes, all, cpu;
  const auto end = Clock::now() + std::chrono::seconds(seconds);
  std::vector<std::thread> threads;
  for (size_t c = 0; c < kClients; ++c) {
    threads.emplace_back([&, c] { Client(100 + c, end, &times[c]); });
  }
  threads.emplace_back([&] { Change(end, &adds, &removes); });
  for (std::thread& thread : threads) thread.join();
  for (size_t kind = 0; kind < 4; ++kind) {
    std::vector<double> of_kind;
    for (const Times& client : times) {
      const std::vector<double>& some = client.of_kind[kind];
      of_kind.insert(of_kind.end(), some.begin(), some.end());
    }
    all.insert(all.end(), of_kind.begin(), of_kind.end());
    ReportTimes(absl::StrCat("query, ", kKinds[kind]), of_kind, kQueryBudgetMs);
  }
  for (const Times& client : times) cpu.insert(cpu.end(), client.cpu.begin(), client.cpu.end());
  ReportTimes("query, all", all, kQueryBudgetMs);
  ReportTimes("query, time on a core", cpu, kQueryBudgetMs);
  ReportTimes("add", adds, 0);
  ReportTimes("remove", removes, 0);
}

void Write(const std::string& path, const std::vector<uint64_t>& words) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(words.data()),
             static_cast<std::streamsize>(words.size() * sizeof(uint64_t)));
  SEMSHARE_CHECK(file.good());
}

// Random codes; queries are codes with 0 to 80 bits flipped.
void BenchCodes(int64_t count, const std::string& folder, Backend* backend) {
  constexpr int kQueries = 1000;
  std::mt19937_64 random(3);
  std::vector<uint64_t> codes(count * kSignatureWords);
  for (uint64_t& word : codes) word = random();
  SignatureIndex index(kSignatureWords, backend);
  for (int64_t i = 0; i < count; ++i) {
    const auto code = absl::MakeConstSpan(codes).subspan(i * kSignatureWords, kSignatureWords);
    SEMSHARE_CHECK(index.Set(static_cast<uint32_t>(i), code).ok());
  }
  std::vector<uint64_t> queries, owners;
  for (int q = 0; q < kQueries; ++q) {
    const uint64_t owner = random() % static_cast<uint64_t>(count);
    std::array<uint64_t, kSignatureWords> query;
    std::copy_n(codes.begin() + static_cast<int64_t>(owner) * kSignatureWords, kSignatureWords,
                query.begin());
    std::array<int, kSignatureBits> bits;
    for (int b = 0; b < kSignatureBits; ++b) bits[b] = b;
    std::shuffle(bits.begin(), bits.end(), random);
    const uint64_t flips = random() % 81;
    for (uint64_t f = 0; f < flips; ++f) query[bits[f] / 64] ^= uint64_t{1} << (bits[f] % 64);
    queries.insert(queries.end(), query.begin(), query.end());
    owners.push_back(owner);
  }
  std::vector<double> times;
  int64_t found = 0;
  for (int q = 0; q < kQueries; ++q) {
    const auto query = absl::MakeConstSpan(queries).subspan(q * kSignatureWords, kSignatureWords);
    const auto begin = Clock::now();
    const auto nearest = index.Nearest(query, 8);
    times.push_back(MsSince(begin));
    SEMSHARE_CHECK(nearest.ok());
    found += (*nearest)[0][0].row == owners[q] ? 1 : 0;
  }
  Report("codes", static_cast<double>(count), "", 0, 1);
  Report("recall", static_cast<double>(found) / kQueries, "share", 0, kQueries);
  ReportTimes("scan", times, 0);
  if (folder.empty()) return;
  Write(absl::StrCat(folder, "/codes.bin"), codes);
  Write(absl::StrCat(folder, "/queries.bin"), queries);
  Write(absl::StrCat(folder, "/owners.bin"), owners);
}

}  // namespace
}  // namespace semshare

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  auto backend = semshare::NewCpuBackend(semshare::CpuBackendOptions());
  SEMSHARE_CHECK(backend.ok());
  if (absl::GetFlag(FLAGS_codes) > 0) {
    semshare::BenchCodes(absl::GetFlag(FLAGS_codes), absl::GetFlag(FLAGS_dump), backend->get());
    return 0;
  }
  semshare::IndexBench bench(std::max<int64_t>(1, absl::GetFlag(FLAGS_references)), backend->get());
  bench.Build();
  bench.Verify();
  bench.Ask(absl::GetFlag(FLAGS_seconds));
  return 0;
}
