#include "server/match/gram_index.h"

#include <algorithm>
#include <deque>

namespace semshare {
namespace {

// Finalizer of SplitMix64: spreads every input bit over the word.
uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

// Keyed hashes of all grams. The ids are mixed with the key before they enter the rolling sum, so
// that without the key nobody can choose ids whose grams collide or always win.
std::vector<uint64_t> HashGrams(absl::Span<const uint32_t> ids, const GramOptions& options) {
  constexpr uint64_t kMultiplier = 0xd6e8feb86659fd93u;
  const auto tokens = static_cast<int64_t>(ids.size());
  const int64_t length = options.gram_tokens;
  if (length <= 0 || tokens < length) return {};
  uint64_t leading = 1;  // kMultiplier ^ (length - 1)
  for (int64_t i = 1; i < length; ++i) leading *= kMultiplier;
  const uint64_t key = Mix(options.key + 0x9e3779b97f4a7c15u);
  std::vector<uint64_t> mixed(tokens);
  for (int64_t i = 0; i < tokens; ++i) mixed[i] = Mix(key ^ (uint64_t{ids[i]} + 1));
  std::vector<uint64_t> hashes(tokens - length + 1);
  uint64_t rolling = 0;
  for (int64_t i = 0; i < tokens; ++i) {
    if (i >= length) rolling -= mixed[i - length] * leading;
    rolling = rolling * kMultiplier + mixed[i];
    if (i + 1 >= length) hashes[i + 1 - length] = Mix(rolling ^ key);
  }
  return hashes;
}

// The hits of one slot.
struct SlotHits {
  uint32_t slot = 0;
  absl::Span<const GramIndex::Hit> hits;
};

std::vector<SlotHits> BySlot(absl::Span<const GramIndex::Hit> hits) {
  std::vector<SlotHits> slots;
  for (size_t begin = 0; begin < hits.size();) {
    size_t end = begin;
    while (end < hits.size() && hits[end].slot == hits[begin].slot) ++end;
    slots.push_back({hits[begin].slot, hits.subspan(begin, end - begin)});
    begin = end;
  }
  return slots;
}

// Tokens from gram `query` to the next kept one: what the gram stands for where the next one is
// held as well.
int64_t CellTokens(absl::Span<const Gram> grams, int64_t query, int gram_tokens) {
  if (query + 1 == static_cast<int64_t>(grams.size())) return gram_tokens;
  return std::min<int64_t>(gram_tokens, grams[query + 1].position - grams[query].position);
}

double SharedTokens(absl::Span<const Gram> grams, absl::Span<const GramIndex::Hit> hits,
                    int gram_tokens) {
  int64_t tokens = 0;
  for (size_t i = 0; i < hits.size(); ++i) {
    const bool next_held = i + 1 < hits.size() && hits[i + 1].query == hits[i].query + 1;
    int64_t cell = gram_tokens;
    if (next_held) {
      cell = CellTokens(grams, hits[i].query, gram_tokens);
    } else if (i + 1 < hits.size()) {
      cell = std::min<int64_t>(cell,
                               grams[hits[i + 1].query].position - grams[hits[i].query].position);
    }
    tokens += cell;
  }
  return static_cast<double>(tokens);
}

}  // namespace

std::vector<Gram> Winnow(absl::Span<const uint32_t> ids, const GramOptions& options) {
  const std::vector<uint64_t> hashes = HashGrams(ids, options);
  const auto count = static_cast<int64_t>(hashes.size());
  const int64_t window = std::min<int64_t>(std::max(1, options.winnow_window), count);
  std::vector<Gram> kept;
  std::deque<int64_t> rising;  // candidates of the window, hashes strictly ascending
  for (int64_t i = 0; i < count; ++i) {
    // Of equal hashes the later one stays: it is in more of the windows to come.
    while (!rising.empty() && hashes[rising.back()] >= hashes[i]) rising.pop_back();
    rising.push_back(i);
    if (rising.front() <= i - window) rising.pop_front();
    if (i + 1 < window) continue;
    const int64_t smallest = rising.front();
    if (kept.empty() || kept.back().position != smallest) {
      kept.push_back({hashes[smallest], smallest});
    }
  }
  return kept;
}

void GramIndex::Add(uint32_t slot, absl::Span<const uint64_t> hashes) {
  for (const uint64_t hash : hashes) {
    Posting& posting = postings_[hash];
    ++posting.references;
    if (static_cast<int>(posting.slots.size()) >= cap_) continue;
    posting.slots.push_back(slot);
    ++slot_entries_;
  }
}

void GramIndex::Remove(uint32_t slot, absl::Span<const uint64_t> hashes) {
  for (const uint64_t hash : hashes) {
    const auto found = postings_.find(hash);
    if (found == postings_.end()) continue;
    Posting& posting = found->second;
    const auto held = std::find(posting.slots.begin(), posting.slots.end(), slot);
    if (held != posting.slots.end()) {
      *held = posting.slots.back();
      posting.slots.pop_back();
      --slot_entries_;
    }
    // A posting that was full may run empty while later references hold the gram: they were never
    // listed, and are found by their other grams.
    if (--posting.references <= 0) postings_.erase(found);
  }
}

std::vector<GramIndex::Hit> GramIndex::Find(absl::Span<const Gram> grams) const {
  std::vector<Hit> hits;
  for (size_t i = 0; i < grams.size(); ++i) {
    const auto found = postings_.find(grams[i].hash);
    if (found == postings_.end()) continue;
    for (const uint32_t slot : found->second.slots) {
      hits.push_back({slot, static_cast<int32_t>(i), found->second.references});
    }
  }
  std::stable_sort(hits.begin(), hits.end(),
                   [](const Hit& a, const Hit& b) { return a.slot < b.slot; });
  return hits;
}

int64_t GramIndex::bytes() const {
  return static_cast<int64_t>(postings_.capacity()) *
             static_cast<int64_t>(sizeof(uint64_t) + sizeof(Posting) + 1) +
         slot_entries_ * static_cast<int64_t>(sizeof(uint32_t));
}

std::vector<GramShare> SharesBySlot(absl::Span<const Gram> grams,
                                    absl::Span<const GramIndex::Hit> hits,
                                    const GramOptions& options) {
  std::vector<GramShare> shares;
  for (const SlotHits& slot : BySlot(hits)) {
    shares.push_back({slot.slot, SharedTokens(grams, slot.hits, options.gram_tokens)});
  }
  return shares;
}

std::vector<GramShare> ChooseByCoverage(absl::Span<const Gram> grams,
                                        absl::Span<const GramIndex::Hit> hits,
                                        const GramOptions& options, int count) {
  // What each gram of the query is worth while nothing covers it.
  std::vector<double> worth(grams.size(), 0.0);
  for (const GramIndex::Hit& hit : hits) {
    const double weight =
        std::min(1.0, static_cast<double>(options.cap) / static_cast<double>(hit.references));
    worth[hit.query] =
        weight * static_cast<double>(CellTokens(grams, hit.query, options.gram_tokens));
  }
  std::vector<SlotHits> open = BySlot(hits);
  std::vector<GramShare> chosen;
  while (static_cast<int>(chosen.size()) < count && !open.empty()) {
    size_t best = 0;
    double best_gain = 0;
    for (size_t i = 0; i < open.size(); ++i) {
      double gain = 0;
      for (const GramIndex::Hit& hit : open[i].hits) gain += worth[hit.query];
      // Of equal ones the later slot: likely the newer reference.
      if (gain >= best_gain) {
        best = i;
        best_gain = gain;
      }
    }
    if (best_gain <= 0) break;
    for (const GramIndex::Hit& hit : open[best].hits) worth[hit.query] = 0;
    chosen.push_back({open[best].slot, SharedTokens(grams, open[best].hits, options.gram_tokens)});
    open.erase(open.begin() + static_cast<int64_t>(best));
  }
  return chosen;
}

std::vector<bool> CoveredByGrams(absl::Span<const Gram> grams,
                                 absl::Span<const GramIndex::Hit> hits, const GramOptions& options,
                                 int64_t tokens) {
  std::vector<bool> held(grams.size());
  for (const GramIndex::Hit& hit : hits) held[hit.query] = true;
  std::vector<bool> covered(tokens);
  for (size_t i = 0; i < grams.size(); ++i) {
    if (!held[i]) continue;
    const int64_t end = std::min(tokens, grams[i].position + options.gram_tokens);
    for (int64_t t = grams[i].position; t < end; ++t) covered[t] = true;
  }
  return covered;
}

}  // namespace semshare
