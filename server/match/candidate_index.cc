#include "server/match/candidate_index.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/match/embedding_space.h"
#include "server/match/grams.h"
#include "server/match/mix.h"
#include "server/match/posting_table.h"
#include "server/match/reference_places.h"
#include "server/match/signature_index.h"
#include "server/match/slabs.h"
#include "server/match/slot_pool.h"
#include "server/match/window_index.h"

namespace semshare {
namespace {

// Places kept for meaning when grams would take all of them.
constexpr int kSignatureCandidates = 2;
// Windows of the query that are looked up: of those that grams left uncovered, evenly spread.
constexpr size_t kMaxQueryWindows = 8;
// A window is uncovered if grams cover less than this share of it.
constexpr double kCoveredWindowShare = 0.5;
// As long as there are at most this many window codes, all are compared.
constexpr int64_t kScannedWindows = 8192;
// Near windows of one query that are compared in full.
constexpr size_t kMaxWindowHits = 32768;

// A reference that shares this much of what the best one shares is its rival.
constexpr double kRivalShare = 0.9;

int32_t CodeDistance(const uint64_t* a, const uint64_t* b) {
  int32_t distance = 0;
  for (int w = 0; w < kSignatureWords; ++w) distance += std::popcount(a[w] ^ b[w]);
  return distance;
}

absl::Status CheckPrompt(absl::Span<const uint32_t> token_ids,
                         absl::Span<const uint64_t> signatures) {
  if (token_ids.empty()) return absl::InvalidArgumentError("a prompt without tokens");
  const auto tokens = static_cast<int64_t>(token_ids.size());
  const int64_t windows = (tokens + kSignatureWindowTokens - 1) / kSignatureWindowTokens;
  const int64_t words = (1 + windows) * kSignatureWords;
  if (!signatures.empty() && static_cast<int64_t>(signatures.size()) != words) {
    return absl::InvalidArgumentError(absl::StrCat("signatures of ", signatures.size(),
                                                   " words for ", tokens, " tokens, not ", words));
  }
  return absl::OkStatus();
}

uint64_t DigestOf(absl::Span<const uint32_t> token_ids) {
  uint64_t digest = token_ids.size();
  for (const uint32_t id : token_ids) digest = Mix(digest ^ id) + 1;
  return digest;
}

void SortByGrams(std::vector<Candidate>* candidates) {
  std::stable_sort(
      candidates->begin(), candidates->end(), [](const Candidate& a, const Candidate& b) {
        return a.gram_tokens != b.gram_tokens ? a.gram_tokens > b.gram_tokens
                                              : a.signature_distance < b.signature_distance;
      });
}

class CandidateIndexImpl : public CandidateIndex {
 public:
  CandidateIndexImpl(const CandidateIndexOptions& options, Backend* backend)
      : options_(options),
        gram_options_{options.gram_tokens, options.winnow_window, options.gram_reference_cap,
                      options.gram_key},
        prompt_codes_(kSignatureWords, backend),
        window_codes_(options.gram_reference_cap, options.gram_key),
        grams_(options.gram_reference_cap) {}

  absl::Status Add(const ReferenceId& id, absl::Span<const uint32_t> token_ids,
                   absl::Span<const uint64_t> signatures) override;
  absl::Status Remove(const ReferenceId& id, absl::Span<const uint32_t> token_ids) override;
  absl::StatusOr<std::vector<Candidate>> Query(absl::Span<const uint32_t> token_ids,
                                               absl::Span<const uint64_t> signatures) override;
  absl::StatusOr<std::vector<Candidate>> QueryOnDemand(absl::Span<const uint32_t> token_ids,
                                                       SignatureSource signatures) override;
  CandidateIndexStats stats() const override;

 private:
  // What lies at a slot. It is written before any part of the index leads to the slot, and again
  // only after no reader can be looking at it.
  struct Reference {
    ReferenceId id;
    uint64_t digest = 0;          // of its token ids
    std::vector<uint64_t> codes;  // the prompt's, then the windows'; none: added without signatures

    int64_t windows() const { return static_cast<int64_t>(codes.size()) / kSignatureWords - 1; }
    const uint64_t* window(int64_t i) const { return codes.data() + (i + 1) * kSignatureWords; }
  };

  // What a query's grams hit.
  struct GramSearch {
    std::vector<Gram> grams;  // the query's
    std::vector<GramHit> hits;
    std::vector<bool> covered;
  };

  struct Semantic {
    uint32_t slot = 0;
    int32_t distance = 0;  // of the prompt or of the nearest window
  };
  using Distances = absl::flat_hash_map<uint32_t, int32_t>;  // by slot

  absl::Status CheckDigest(const Reference& held, absl::Span<const uint32_t> token_ids) const;
  absl::Status Fill(uint32_t slot, const ReferenceId& id, absl::Span<const uint32_t> token_ids,
                    absl::Span<const uint64_t> signatures);
  void Drop(uint32_t slot, absl::Span<const uint64_t> hashes);
  GramSearch SearchGrams(absl::Span<const uint32_t> token_ids) const;
  std::vector<uint64_t> UncoveredWindows(absl::Span<const uint64_t> signatures,
                                         const std::vector<bool>& covered) const;
  void NoteWindows(absl::Span<const uint64_t> windows, Distances* distances) const;
  absl::StatusOr<std::vector<Semantic>> FindSemantic(absl::Span<const uint64_t> signatures,
                                                     const std::vector<bool>& covered) const;
  Candidate CandidateAt(uint32_t slot, double gram_tokens,
                        absl::Span<const uint64_t> signatures) const;
  absl::StatusOr<std::vector<Candidate>> AddMeaning(absl::Span<const uint64_t> signatures,
                                                    const GramSearch& search) const;
  std::vector<Candidate> FewestSharers(const GramSearch& search) const;

  const CandidateIndexOptions options_;
  const GramOptions gram_options_;
  SignatureIndex prompt_codes_;  // rows are slots
  WindowIndex window_codes_;
  PostingTable grams_;
  ReferencePlaces places_;
  SlotPool slots_;  // a query is a reader
  SlabArray<Reference> references_;
  std::atomic<int64_t> windows_{0};
  std::atomic<int64_t> code_bytes_{0};
};

absl::Status CandidateIndexImpl::CheckDigest(const Reference& held,
                                             absl::Span<const uint32_t> token_ids) const {
  if (held.digest == DigestOf(token_ids)) return absl::OkStatus();
  return absl::InvalidArgumentError("the reference is in the index with other token ids");
}

absl::Status CandidateIndexImpl::Add(const ReferenceId& id, absl::Span<const uint32_t> token_ids,
                                     absl::Span<const uint64_t> signatures) {
  SEMSHARE_RETURN_IF_ERROR(CheckPrompt(token_ids, signatures));
  ReferencePlaces::Change change(&places_, id);
  if (change.slot.has_value()) {
    const Reference& held = references_[*change.slot];
    SEMSHARE_RETURN_IF_ERROR(CheckDigest(held, token_ids));
    if (signatures == absl::MakeConstSpan(held.codes)) return absl::OkStatus();
  }
  const uint32_t slot = slots_.Take();
  absl::Status filled = Fill(slot, id, token_ids, signatures);
  if (!filled.ok()) {
    slots_.GiveBack(slot);
    return filled;
  }
  const std::vector<uint64_t> hashes = DistinctHashes(Winnow(token_ids, gram_options_));
  grams_.Add(slot, hashes);
  if (change.slot.has_value()) Drop(*change.slot, hashes);
  change.slot = slot;
  return absl::OkStatus();
}

// Everything but the grams.
absl::Status CandidateIndexImpl::Fill(uint32_t slot, const ReferenceId& id,
                                      absl::Span<const uint32_t> token_ids,
                                      absl::Span<const uint64_t> signatures) {
  references_.Ensure(slot);
  Reference& reference = references_[slot];
  const size_t old_words = reference.codes.capacity();
  reference = {id, DigestOf(token_ids), {signatures.begin(), signatures.end()}};
  code_bytes_ +=
      (static_cast<int64_t>(reference.codes.capacity()) - static_cast<int64_t>(old_words)) *
      static_cast<int64_t>(sizeof(uint64_t));
  if (signatures.empty()) return absl::OkStatus();
  SEMSHARE_RETURN_IF_ERROR(prompt_codes_.Set(slot, signatures.first(kSignatureWords)));
  window_codes_.Add(slot, signatures.subspan(kSignatureWords));
  windows_ += reference.windows();
  return absl::OkStatus();
}

void CandidateIndexImpl::Drop(uint32_t slot, absl::Span<const uint64_t> hashes) {
  const Reference& reference = references_[slot];
  if (!reference.codes.empty()) {
    prompt_codes_.Clear(slot);
    window_codes_.Remove(slot, absl::MakeConstSpan(reference.codes).subspan(kSignatureWords));
    windows_ -= reference.windows();
  }
  grams_.Remove(slot, hashes);
  slots_.GiveBack(slot);
}

absl::Status CandidateIndexImpl::Remove(const ReferenceId& id,
                                        absl::Span<const uint32_t> token_ids) {
  ReferencePlaces::Change change(&places_, id);
  if (!change.slot.has_value()) return absl::OkStatus();
  SEMSHARE_RETURN_IF_ERROR(CheckDigest(references_[*change.slot], token_ids));
  Drop(*change.slot, DistinctHashes(Winnow(token_ids, gram_options_)));
  change.slot.reset();
  return absl::OkStatus();
}

CandidateIndexImpl::GramSearch CandidateIndexImpl::SearchGrams(
    absl::Span<const uint32_t> token_ids) const {
  GramSearch search;
  search.grams = Winnow(token_ids, gram_options_);
  search.hits = FindGrams(grams_, search.grams);
  search.covered = CoveredByGrams(search.grams, search.hits, gram_options_,
                                  static_cast<int64_t>(token_ids.size()));
  return search;
}

// Codes of the windows that grams left uncovered.
std::vector<uint64_t> CandidateIndexImpl::UncoveredWindows(absl::Span<const uint64_t> signatures,
                                                           const std::vector<bool>& covered) const {
  std::vector<int64_t> windows;
  const auto tokens = static_cast<int64_t>(covered.size());
  for (int64_t begin = 0; begin < tokens; begin += kSignatureWindowTokens) {
    const int64_t end = std::min(tokens, begin + kSignatureWindowTokens);
    const int64_t held = std::count(covered.begin() + begin, covered.begin() + end, true);
    if (static_cast<double>(held) < kCoveredWindowShare * static_cast<double>(end - begin)) {
      windows.push_back(begin / kSignatureWindowTokens);
    }
  }
  const size_t looked_up = std::min(windows.size(), kMaxQueryWindows);
  std::vector<uint64_t> codes;
  for (size_t i = 0; i < looked_up; ++i) {
    const auto window = static_cast<size_t>(windows[i * windows.size() / looked_up]);
    const auto code = signatures.subspan((1 + window) * kSignatureWords, kSignatureWords);
    codes.insert(codes.end(), code.begin(), code.end());
  }
  return codes;
}

void CandidateIndexImpl::NoteWindows(absl::Span<const uint64_t> windows,
                                     Distances* distances) const {
  const auto compare = [&](uint32_t slot, const uint64_t* window, const uint64_t* query) {
    const int32_t distance = CodeDistance(window, query);
    if (distance > options_.max_signature_distance) return;
    const auto [at, added] = distances->try_emplace(slot, distance);
    if (!added) at->second = std::min(at->second, distance);
  };
  if (windows.empty()) return;
  if (windows_.load() <= kScannedWindows) {
    for (const uint32_t slot : prompt_codes_.LiveRows()) {
      const Reference& reference = references_[slot];
      for (int64_t w = 0; w < reference.windows(); ++w) {
        for (size_t q = 0; q < windows.size(); q += kSignatureWords) {
          compare(slot, reference.window(w), windows.data() + q);
        }
      }
    }
    return;
  }
  const std::vector<WindowIndex::Hit> hits = window_codes_.Find(windows, kMaxWindowHits);
  // Each hit is two steps into memory that is seldom cached: many at once.
  constexpr size_t kAhead = 16;
  for (size_t i = 0; i < hits.size() + 2 * kAhead; ++i) {
    if (i < hits.size()) __builtin_prefetch(&references_[hits[i].slot]);
    if (i >= kAhead && i - kAhead < hits.size()) {
      const Reference& reference = references_[hits[i - kAhead].slot];
      for (int64_t w = 0; w < reference.windows(); w += 2) __builtin_prefetch(reference.window(w));
    }
    if (i < 2 * kAhead) continue;
    const WindowIndex::Hit& hit = hits[i - 2 * kAhead];
    const Reference& reference = references_[hit.slot];
    const uint64_t* const query = windows.data() + int64_t{hit.query} * kSignatureWords;
    for (int64_t w = 0; w < reference.windows(); ++w) {
      if (WindowAgrees(reference.window(w), query, hit.word)) {
        compare(hit.slot, reference.window(w), query);
      }
    }
  }
}

// References near by their prompt codes, or by a window where grams found nothing; nearest first.
absl::StatusOr<std::vector<CandidateIndexImpl::Semantic>> CandidateIndexImpl::FindSemantic(
    absl::Span<const uint64_t> signatures, const std::vector<bool>& covered) const {
  std::vector<Semantic> semantic;
  if (signatures.empty()) return semantic;
  SEMSHARE_ASSIGN_OR_RETURN(
      const auto by_prompt,
      prompt_codes_.Nearest(signatures.first(kSignatureWords), options_.max_candidates));
  Distances distances;
  for (const SignatureIndex::Near& near : by_prompt.front()) {
    if (near.distance <= options_.max_signature_distance) distances[near.row] = near.distance;
  }
  NoteWindows(UncoveredWindows(signatures, covered), &distances);
  for (const auto& [slot, distance] : distances) semantic.push_back({slot, distance});
  std::sort(semantic.begin(), semantic.end(), [](const Semantic& a, const Semantic& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.slot < b.slot;
  });
  return semantic;
}

Candidate CandidateIndexImpl::CandidateAt(uint32_t slot, double gram_tokens,
                                          absl::Span<const uint64_t> signatures) const {
  const Reference& reference = references_[slot];
  Candidate candidate{reference.id, gram_tokens, kSignatureBits};
  if (!signatures.empty() && !reference.codes.empty()) {
    candidate.signature_distance = CodeDistance(signatures.data(), reference.codes.data());
  }
  return candidate;
}

absl::StatusOr<std::vector<Candidate>> CandidateIndexImpl::AddMeaning(
    absl::Span<const uint64_t> signatures, const GramSearch& search) const {
  SEMSHARE_ASSIGN_OR_RETURN(const std::vector<Semantic> semantic,
                            FindSemantic(signatures, search.covered));
  absl::flat_hash_set<ReferenceId> taken;
  std::vector<Candidate> by_grams;
  std::vector<Candidate> by_meaning;
  const auto max_candidates = static_cast<size_t>(options_.max_candidates);
  const auto full = [&] { return by_grams.size() + by_meaning.size() >= max_candidates; };
  const auto take = [&](const GramShare& share) {
    if (full() || !taken.insert(references_[share.slot].id).second) return;
    by_grams.push_back(CandidateAt(share.slot, share.tokens, signatures));
  };
  const int reserved = std::min(
      {kSignatureCandidates, static_cast<int>(semantic.size()), options_.max_candidates - 1});
  for (const GramShare& share : ChooseByCoverage(search.grams, search.hits, gram_options_,
                                                 options_.max_candidates - reserved)) {
    take(share);
  }
  std::vector<GramShare> shares = SharesBySlot(search.grams, search.hits, gram_options_);
  for (const Semantic& one : semantic) {
    if (full()) break;
    // One that grams know is listed there, with its share.
    const bool hit =
        std::binary_search(shares.begin(), shares.end(), GramShare{one.slot, 0},
                           [](const GramShare& a, const GramShare& b) { return a.slot < b.slot; });
    if (!hit && taken.insert(references_[one.slot].id).second) {
      by_meaning.push_back(CandidateAt(one.slot, 0, signatures));
    }
  }
  std::stable_sort(shares.begin(), shares.end(),
                   [](const GramShare& a, const GramShare& b) { return a.tokens > b.tokens; });
  for (const GramShare& share : shares) take(share);
  SortByGrams(&by_grams);
  by_grams.insert(by_grams.end(), by_meaning.begin(), by_meaning.end());
  return by_grams;
}

absl::StatusOr<std::vector<Candidate>> CandidateIndexImpl::Query(
    absl::Span<const uint32_t> token_ids, absl::Span<const uint64_t> signatures) {
  SEMSHARE_RETURN_IF_ERROR(CheckPrompt(token_ids, signatures));
  const SlotPool::Reader reader(&slots_);
  return AddMeaning(signatures, SearchGrams(token_ids));
}

absl::StatusOr<std::vector<Candidate>> CandidateIndexImpl::QueryOnDemand(
    absl::Span<const uint32_t> token_ids, SignatureSource source) {
  SEMSHARE_RETURN_IF_ERROR(CheckPrompt(token_ids, {}));
  const SlotPool::Reader reader(&slots_);
  const GramSearch search = SearchGrams(token_ids);
  const auto covered = std::count(search.covered.begin(), search.covered.end(), true);
  if (static_cast<double>(covered) < kMeaningSpared * static_cast<double>(token_ids.size())) {
    SEMSHARE_ASSIGN_OR_RETURN(const std::vector<uint64_t> signatures, source());
    SEMSHARE_RETURN_IF_ERROR(CheckPrompt(token_ids, signatures));
    return AddMeaning(signatures, search);
  }
  return FewestSharers(search);
}

// Those that cover the prompt together, and their rivals: references that share about as much as
// the best may lie better, at the same positions for one.
std::vector<Candidate> CandidateIndexImpl::FewestSharers(const GramSearch& search) const {
  const auto most = static_cast<size_t>(options_.max_candidates);
  std::vector<GramShare> shares =
      ChooseByCoverage(search.grams, search.hits, gram_options_, options_.max_candidates);
  const double rival = shares.empty() ? 0 : kRivalShare * shares.front().tokens;
  absl::flat_hash_set<uint32_t> taken;
  for (const GramShare& share : shares) taken.insert(share.slot);
  for (const GramShare& share : SharesBySlot(search.grams, search.hits, gram_options_)) {
    if (shares.size() >= most) break;
    if (share.tokens >= rival && taken.insert(share.slot).second) shares.push_back(share);
  }
  std::vector<Candidate> candidates;
  for (const GramShare& share : shares) {
    candidates.push_back(CandidateAt(share.slot, share.tokens, {}));
  }
  SortByGrams(&candidates);
  return candidates;
}

CandidateIndexStats CandidateIndexImpl::stats() const {
  CandidateIndexStats stats;
  stats.references = places_.size();
  stats.grams = grams_.hashes();
  stats.bytes = grams_.bytes() + prompt_codes_.bytes() + window_codes_.bytes() + places_.bytes() +
                references_.bytes() + code_bytes_.load();
  return stats;
}

}  // namespace

absl::Status CandidateIndexOptions::Validate() const {
  const auto check = [](const char* name, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is ", value, ", not in ", low, "..", high));
  };
  SEMSHARE_RETURN_IF_ERROR(check("gram_tokens", gram_tokens, 1, 1024));
  SEMSHARE_RETURN_IF_ERROR(check("winnow_window", winnow_window, 1, 1024));
  SEMSHARE_RETURN_IF_ERROR(check("gram_reference_cap", gram_reference_cap, 1, 65536));
  SEMSHARE_RETURN_IF_ERROR(check("max_candidates", max_candidates, 1, 64));
  return check("max_signature_distance", max_signature_distance, 0, kSignatureBits);
}

absl::StatusOr<std::unique_ptr<CandidateIndex>> CandidateIndex::Create(
    const CandidateIndexOptions& options, Backend* backend) {
  SEMSHARE_CHECK(backend != nullptr);
  SEMSHARE_RETURN_IF_ERROR(options.Validate());
  return std::make_unique<CandidateIndexImpl>(options, backend);
}

}  // namespace semshare
