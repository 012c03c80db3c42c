#include "server/match/candidate_index.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/mutex.h"
#include "kernels/base/status_macros.h"
#include "server/match/embedding_space.h"
#include "server/match/gram_index.h"
#include "server/match/signature_index.h"

namespace semshare {
namespace {

// Places kept for meaning when grams would take all of them.
constexpr int kSignatureCandidates = 2;
// Windows of the query that are looked up: the first ones that grams left uncovered.
constexpr int64_t kMaxQueryWindows = 64;
// A window is uncovered if grams cover less than this share of it.
constexpr double kCoveredWindowShare = 0.5;

// A reference that shares this much of what the best one shares is its rival.
constexpr double kRivalShare = 0.9;

using Code = std::array<uint64_t, kSignatureWords>;

int32_t CodeDistance(absl::Span<const uint64_t> a, const Code& b) {
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

std::vector<uint64_t> DistinctHashes(const std::vector<Gram>& grams) {
  std::vector<uint64_t> hashes;
  hashes.reserve(grams.size());
  for (const Gram& gram : grams) hashes.push_back(gram.hash);
  std::sort(hashes.begin(), hashes.end());
  hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
  return hashes;
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
        window_codes_(kSignatureWords, backend),
        grams_(options.gram_reference_cap) {}

  absl::Status Add(const ReferenceId& id, absl::Span<const uint32_t> token_ids,
                   absl::Span<const uint64_t> signatures) override;
  void Remove(const ReferenceId& id) override;
  absl::StatusOr<std::vector<Candidate>> Query(absl::Span<const uint32_t> token_ids,
                                               absl::Span<const uint64_t> signatures) override;
  absl::StatusOr<std::vector<Candidate>> QueryOnDemand(absl::Span<const uint32_t> token_ids,
                                                       SignatureSource signatures) override;
  CandidateIndexStats stats() const override;

 private:
  // A reference. `serial` names it in the signature indexes: it is never used twice, so codes that
  // outlive their reference for a moment lead nowhere.
  struct Entry {
    ReferenceId id;
    uint64_t serial = 0;
    std::vector<uint64_t> hashes;
    std::optional<Code> prompt_code;  // none: added without signatures
  };

  // What is known of the references that a query's grams hit, copied under the lock.
  struct Snapshot {
    std::vector<Gram> grams;  // the query's
    std::vector<bool> covered;
    std::vector<GramIndex::Hit> hits;
    absl::flat_hash_map<uint32_t, std::pair<ReferenceId, std::optional<Code>>> entries;
  };

  static int64_t EntryBytes(const Entry& entry) {
    return static_cast<int64_t>(sizeof(Entry) + sizeof(uint64_t) * entry.hashes.size());
  }

  struct Semantic {
    Candidate candidate;
    int32_t distance = 0;  // of the prompt or of the nearest window
  };

  std::optional<uint64_t> RemoveLocked(const ReferenceId& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropCodes(uint64_t serial);
  Snapshot FindGrams(absl::Span<const uint32_t> token_ids) const;
  absl::StatusOr<std::vector<Semantic>> FindSemantic(absl::Span<const uint32_t> token_ids,
                                                     absl::Span<const uint64_t> signatures,
                                                     const std::vector<bool>& covered) const;
  absl::StatusOr<std::vector<Candidate>> AddMeaning(absl::Span<const uint32_t> token_ids,
                                                    absl::Span<const uint64_t> signatures,
                                                    const Snapshot& snapshot) const;
  std::vector<Candidate> FewestSharers(const Snapshot& snapshot) const;
  std::vector<Candidate> Merge(const Snapshot& snapshot, absl::Span<const uint64_t> signatures,
                               const std::vector<Semantic>& semantic) const;

  const CandidateIndexOptions options_;
  const GramOptions gram_options_;
  SignatureIndex prompt_codes_;
  SignatureIndex window_codes_;

  mutable Mutex mutex_;
  // Guarded by mutex_.
  GramIndex grams_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_serial_ ABSL_GUARDED_BY(mutex_) = 1;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // by slot
  std::vector<uint32_t> free_slots_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<ReferenceId, uint32_t> slot_of_id_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, uint32_t> slot_of_serial_ ABSL_GUARDED_BY(mutex_);
  int64_t entry_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status CandidateIndexImpl::Add(const ReferenceId& id, absl::Span<const uint32_t> token_ids,
                                     absl::Span<const uint64_t> signatures) {
  SEMSHARE_RETURN_IF_ERROR(CheckPrompt(token_ids, signatures));
  Entry entry;
  entry.id = id;
  entry.hashes = DistinctHashes(Winnow(token_ids, gram_options_));
  {
    const MutexLock lock(&mutex_);
    entry.serial = next_serial_++;
  }
  const uint64_t serial = entry.serial;
  if (!signatures.empty()) {
    const absl::Span<const uint64_t> prompt = signatures.first(kSignatureWords);
    std::copy(prompt.begin(), prompt.end(), entry.prompt_code.emplace().begin());
    absl::Status status = prompt_codes_.Add(serial, prompt);
    if (status.ok()) {
      status = window_codes_.Add(serial, signatures.subspan(kSignatureWords));
    }
    if (!status.ok()) {
      DropCodes(serial);
      return status;
    }
  }
  std::optional<uint64_t> replaced;
  {
    const MutexLock lock(&mutex_);
    replaced = RemoveLocked(id);
    uint32_t slot = static_cast<uint32_t>(entries_.size());
    if (free_slots_.empty()) {
      entries_.emplace_back();
    } else {
      slot = free_slots_.back();
      free_slots_.pop_back();
    }
    grams_.Add(slot, entry.hashes);
    slot_of_id_[id] = slot;
    slot_of_serial_[serial] = slot;
    entry_bytes_ += EntryBytes(entry);
    entries_[slot] = std::move(entry);
  }
  if (replaced) DropCodes(*replaced);
  return absl::OkStatus();
}

// Returns the serial whose codes are to be dropped.
std::optional<uint64_t> CandidateIndexImpl::RemoveLocked(const ReferenceId& id) {
  const auto found = slot_of_id_.find(id);
  if (found == slot_of_id_.end()) return std::nullopt;
  const uint32_t slot = found->second;
  Entry& entry = entries_[slot];
  grams_.Remove(slot, entry.hashes);
  entry_bytes_ -= EntryBytes(entry);
  const uint64_t serial = entry.serial;
  slot_of_serial_.erase(serial);
  slot_of_id_.erase(found);
  free_slots_.push_back(slot);
  entry = Entry();
  return serial;
}

void CandidateIndexImpl::DropCodes(uint64_t serial) {
  prompt_codes_.Remove(serial);
  window_codes_.Remove(serial);
}

void CandidateIndexImpl::Remove(const ReferenceId& id) {
  std::optional<uint64_t> removed;
  {
    const MutexLock lock(&mutex_);
    removed = RemoveLocked(id);
  }
  if (removed) DropCodes(*removed);
}

CandidateIndexImpl::Snapshot CandidateIndexImpl::FindGrams(
    absl::Span<const uint32_t> token_ids) const {
  Snapshot snapshot;
  snapshot.grams = Winnow(token_ids, gram_options_);
  {
    const MutexLock lock(&mutex_);
    snapshot.hits = grams_.Find(snapshot.grams);
    for (const GramIndex::Hit& hit : snapshot.hits) {
      if (snapshot.entries.contains(hit.slot)) continue;
      const Entry& entry = entries_[hit.slot];
      snapshot.entries[hit.slot] = {entry.id, entry.prompt_code};
    }
  }
  snapshot.covered = CoveredByGrams(snapshot.grams, snapshot.hits, gram_options_,
                                    static_cast<int64_t>(token_ids.size()));
  return snapshot;
}

// References near by their prompt codes, or by a window where grams found nothing.
absl::StatusOr<std::vector<CandidateIndexImpl::Semantic>> CandidateIndexImpl::FindSemantic(
    absl::Span<const uint32_t> token_ids, absl::Span<const uint64_t> signatures,
    const std::vector<bool>& covered) const {
  std::vector<Semantic> semantic;
  if (signatures.empty()) return semantic;
  const absl::Span<const uint64_t> prompt = signatures.first(kSignatureWords);
  const int k = std::min(64, options_.max_candidates);
  SEMSHARE_ASSIGN_OR_RETURN(const auto by_prompt, prompt_codes_.Nearest(prompt, k));

  std::vector<uint64_t> windows;
  const auto tokens = static_cast<int64_t>(token_ids.size());
  const auto limit = static_cast<size_t>(kMaxQueryWindows * kSignatureWords);
  for (int64_t w = 0; w * kSignatureWindowTokens < tokens && windows.size() < limit; ++w) {
    const int64_t begin = w * kSignatureWindowTokens;
    const int64_t end = std::min(tokens, begin + kSignatureWindowTokens);
    const int64_t held = std::count(covered.begin() + begin, covered.begin() + end, true);
    if (static_cast<double>(held) >= kCoveredWindowShare * static_cast<double>(end - begin)) {
      continue;
    }
    const auto code = signatures.subspan((1 + w) * kSignatureWords, kSignatureWords);
    windows.insert(windows.end(), code.begin(), code.end());
  }
  SEMSHARE_ASSIGN_OR_RETURN(const auto by_window, window_codes_.Nearest(windows, k));

  absl::flat_hash_map<uint64_t, int32_t> distance_of;  // by serial
  const auto note = [&](const std::vector<SignatureIndex::Near>& near) {
    for (const SignatureIndex::Near& one : near) {
      if (one.distance > options_.max_signature_distance) continue;
      const auto [at, added] = distance_of.try_emplace(one.owner, one.distance);
      if (!added) at->second = std::min(at->second, one.distance);
    }
  };
  for (const auto& near : by_prompt) note(near);
  for (const auto& near : by_window) note(near);

  const MutexLock lock(&mutex_);
  for (const auto& [serial, distance] : distance_of) {
    const auto slot = slot_of_serial_.find(serial);
    if (slot == slot_of_serial_.end()) continue;  // being added or removed
    const Entry& entry = entries_[slot->second];
    if (!entry.prompt_code.has_value()) continue;  // has no codes to be found by
    semantic.push_back({{entry.id, 0, CodeDistance(prompt, *entry.prompt_code)}, distance});
  }
  return semantic;
}

std::vector<Candidate> CandidateIndexImpl::Merge(const Snapshot& snapshot,
                                                 absl::Span<const uint64_t> signatures,
                                                 const std::vector<Semantic>& semantic) const {
  absl::flat_hash_set<ReferenceId> taken;
  std::vector<Candidate> by_grams;
  std::vector<Candidate> by_meaning;
  const auto max_candidates = static_cast<size_t>(options_.max_candidates);
  const auto take = [&](const GramShare& share) {
    const auto& [id, code] = snapshot.entries.at(share.slot);
    if (by_grams.size() + by_meaning.size() >= max_candidates || !taken.insert(id).second) return;
    Candidate candidate{id, share.tokens, kSignatureBits};
    if (!signatures.empty() && code.has_value()) {
      candidate.signature_distance = CodeDistance(signatures.first(kSignatureWords), *code);
    }
    by_grams.push_back(candidate);
  };
  const int reserved = std::min(
      {kSignatureCandidates, static_cast<int>(semantic.size()), options_.max_candidates - 1});
  for (const GramShare& share : ChooseByCoverage(snapshot.grams, snapshot.hits, gram_options_,
                                                 options_.max_candidates - reserved)) {
    take(share);
  }
  for (const Semantic& one : semantic) {
    if (by_grams.size() + by_meaning.size() >= max_candidates) break;
    // One that grams know is listed there, with its share.
    const bool hit =
        std::any_of(snapshot.entries.begin(), snapshot.entries.end(),
                    [&](const auto& entry) { return entry.second.first == one.candidate.id; });
    if (!hit && taken.insert(one.candidate.id).second) by_meaning.push_back(one.candidate);
  }
  std::vector<GramShare> shares = SharesBySlot(snapshot.grams, snapshot.hits, gram_options_);
  std::stable_sort(shares.begin(), shares.end(),
                   [](const GramShare& a, const GramShare& b) { return a.tokens > b.tokens; });
  for (const GramShare& share : shares) take(share);
  SortByGrams(&by_grams);
  by_grams.insert(by_grams.end(), by_meaning.begin(), by_meaning.end());
  return by_grams;
}

absl::StatusOr<std::vector<Candidate>> CandidateIndexImpl::AddMeaning(
    absl::Span<const uint32_t> token_ids, absl::Span<const uint64_t> signatures,
    const Snapshot& snapshot) const {
  SEMSHARE_ASSIGN_OR_RETURN(std::vector<Semantic> semantic,
                            FindSemantic(token_ids, signatures, snapshot.covered));
  std::sort(semantic.begin(), semantic.end(), [](const Semantic& a, const Semantic& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.candidate.id < b.candidate.id;
  });
  return Merge(snapshot, signatures, semantic);
}

absl::StatusOr<std::vector<Candidate>> CandidateIndexImpl::Query(
    absl::Span<const uint32_t> token_ids, absl::Span<const uint64_t> signatures) {
  SEMSHARE_RETURN_IF_ERROR(CheckPrompt(token_ids, signatures));
  return AddMeaning(token_ids, signatures, FindGrams(token_ids));
}

absl::StatusOr<std::vector<Candidate>> CandidateIndexImpl::QueryOnDemand(
    absl::Span<const uint32_t> token_ids, SignatureSource source) {
  SEMSHARE_RETURN_IF_ERROR(CheckPrompt(token_ids, {}));
  const Snapshot snapshot = FindGrams(token_ids);
  const auto covered = std::count(snapshot.covered.begin(), snapshot.covered.end(), true);
  if (static_cast<double>(covered) < kMeaningSpared * static_cast<double>(token_ids.size())) {
    SEMSHARE_ASSIGN_OR_RETURN(const std::vector<uint64_t> signatures, source());
    SEMSHARE_RETURN_IF_ERROR(CheckPrompt(token_ids, signatures));
    return AddMeaning(token_ids, signatures, snapshot);
  }
  return FewestSharers(snapshot);
}

// Those that cover the prompt together, and their rivals: references that share about as much as
// the best may lie better, at the same positions for one.
std::vector<Candidate> CandidateIndexImpl::FewestSharers(const Snapshot& snapshot) const {
  const auto most = static_cast<size_t>(options_.max_candidates);
  std::vector<GramShare> shares =
      ChooseByCoverage(snapshot.grams, snapshot.hits, gram_options_, options_.max_candidates);
  const double rival = shares.empty() ? 0 : kRivalShare * shares.front().tokens;
  absl::flat_hash_set<uint32_t> taken;
  for (const GramShare& share : shares) taken.insert(share.slot);
  for (const GramShare& share : SharesBySlot(snapshot.grams, snapshot.hits, gram_options_)) {
    if (shares.size() >= most) break;
    if (share.tokens >= rival && taken.insert(share.slot).second) shares.push_back(share);
  }
  std::vector<Candidate> candidates;
  for (const GramShare& share : shares) {
    candidates.push_back({snapshot.entries.at(share.slot).first, share.tokens});
  }
  SortByGrams(&candidates);
  return candidates;
}

CandidateIndexStats CandidateIndexImpl::stats() const {
  CandidateIndexStats stats;
  stats.bytes = prompt_codes_.bytes() + window_codes_.bytes();
  const MutexLock lock(&mutex_);
  stats.references = static_cast<int64_t>(slot_of_id_.size());
  stats.grams = grams_.grams();
  stats.bytes += grams_.bytes() + entry_bytes_;
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
