#include "server/match/grams.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

namespace semshare {
namespace {

// Ascending by `key`, equal ones in the order that they had: a counting sort for every digit that
// some key needs.
template <typename Key>
void SortStably(uint32_t largest, Key key, std::vector<GramHit>* hits) {
  constexpr int kDigitBits = 11;
  constexpr uint32_t kDigit = (1u << kDigitBits) - 1;
  std::vector<GramHit> sorted(hits->size());
  for (int shift = 0; shift < 32 && largest >> shift != 0; shift += kDigitBits) {
    std::array<uint32_t, kDigit + 2> begins = {};
    for (const GramHit& hit : *hits) ++begins[(key(hit) >> shift & kDigit) + 1];
    std::partial_sum(begins.begin(), begins.end(), begins.begin());
    for (const GramHit& hit : *hits) sorted[begins[key(hit) >> shift & kDigit]++] = hit;
    hits->swap(sorted);
  }
}

// The hits of one slot.
struct SlotHits {
  uint32_t slot = 0;
  absl::Span<const GramHit> hits;
};

std::vector<SlotHits> BySlot(absl::Span<const GramHit> hits) {
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

double SharedTokens(absl::Span<const Gram> grams, absl::Span<const GramHit> hits, int gram_tokens) {
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

std::vector<GramHit> FindGrams(const PostingTable& table, absl::Span<const Gram> grams) {
  std::vector<uint64_t> hashes;
  hashes.reserve(grams.size());
  for (const Gram& gram : grams) hashes.push_back(gram.hash);
  std::vector<GramHit> hits;
  table.Find(hashes, std::numeric_limits<size_t>::max(), &hits);
  uint32_t slots = 0;
  for (const GramHit& hit : hits) slots |= hit.slot;
  const auto query = [](const GramHit& hit) { return static_cast<uint32_t>(hit.query); };
  SortStably(static_cast<uint32_t>(grams.size()), query, &hits);
  SortStably(
      slots, [](const GramHit& hit) { return hit.slot; }, &hits);
  return hits;
}

std::vector<GramShare> SharesBySlot(absl::Span<const Gram> grams, absl::Span<const GramHit> hits,
                                    const GramOptions& options) {
  std::vector<GramShare> shares;
  for (const SlotHits& slot : BySlot(hits)) {
    shares.push_back({slot.slot, SharedTokens(grams, slot.hits, options.gram_tokens)});
  }
  return shares;
}

std::vector<GramShare> ChooseByCoverage(absl::Span<const Gram> grams,
                                        absl::Span<const GramHit> hits, const GramOptions& options,
                                        int count) {
  // What each gram of the query is worth while nothing covers it.
  std::vector<double> worth(grams.size(), 0.0);
  for (const GramHit& hit : hits) {
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
      for (const GramHit& hit : open[i].hits) gain += worth[hit.query];
      // Of equal ones the later slot: likely the newer reference.
      if (gain >= best_gain) {
        best = i;
        best_gain = gain;
      }
    }
    if (best_gain <= 0) break;
    for (const GramHit& hit : open[best].hits) worth[hit.query] = 0;
    chosen.push_back({open[best].slot, SharedTokens(grams, open[best].hits, options.gram_tokens)});
    open.erase(open.begin() + static_cast<int64_t>(best));
  }
  return chosen;
}

std::vector<bool> CoveredByGrams(absl::Span<const Gram> grams, absl::Span<const GramHit> hits,
                                 const GramOptions& options, int64_t tokens) {
  std::vector<bool> held(grams.size());
  for (const GramHit& hit : hits) held[hit.query] = true;
  std::vector<bool> covered(tokens);
  for (size_t i = 0; i < grams.size(); ++i) {
    if (!held[i]) continue;
    const int64_t end = std::min(tokens, grams[i].position + options.gram_tokens);
    std::fill(covered.begin() + grams[i].position, covered.begin() + end, true);
  }
  return covered;
}

}  // namespace semshare
