#include "server/match/window_index.h"

#include <algorithm>
#include <bit>

#include "server/match/mix.h"

namespace semshare {
namespace {

constexpr uint64_t kKeyMask = (uint64_t{1} << kWindowKeyBits) - 1;

// Keys that differ in exactly `flips` bits.
void AppendFlipped(uint64_t bits, int flips, int first_bit, std::vector<uint64_t>* flipped) {
  if (flips == 0) {
    flipped->push_back(bits);
    return;
  }
  for (int bit = first_bit; bit < kWindowKeyBits; ++bit) {
    AppendFlipped(bits ^ (uint64_t{1} << bit), flips - 1, bit + 1, flipped);
  }
}

// The hash of some bits of code[i] is Mix of them xor this.
uint64_t WordKey(uint64_t key, size_t i) { return Mix(key + i % kSignatureWords + 1); }

}  // namespace

std::vector<uint64_t> WindowIndex::KeysOf(absl::Span<const uint64_t> codes) const {
  std::vector<uint64_t> keys;
  keys.reserve(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    keys.push_back(Mix(WordKey(key_, i) ^ (codes[i] & kKeyMask)));
  }
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

void WindowIndex::Add(uint32_t slot, absl::Span<const uint64_t> codes) {
  table_.Add(slot, KeysOf(codes));
}

void WindowIndex::Remove(uint32_t slot, absl::Span<const uint64_t> codes) {
  table_.Remove(slot, KeysOf(codes));
}

std::vector<WindowIndex::Hit> WindowIndex::Find(absl::Span<const uint64_t> queries,
                                                size_t max_hits) const {
  std::vector<Hit> hits;
  for (int flips = 0; flips <= kWindowKeyFlips && hits.size() < max_hits; ++flips) {
    std::vector<uint64_t> hashes;
    for (size_t i = 0; i < queries.size(); ++i) {
      AppendFlipped(WordKey(key_, i) ^ (queries[i] & kKeyMask), flips, 0, &hashes);
    }
    if (hashes.empty()) break;
    for (uint64_t& hash : hashes) hash = Mix(hash);
    const size_t of_word = hashes.size() / queries.size();
    std::vector<PostingTable::Hit> found;
    table_.Find(hashes, max_hits - hits.size(), &found);
    for (const PostingTable::Hit& one : found) {
      const size_t i = static_cast<size_t>(one.query) / of_word;
      hits.push_back({one.slot, static_cast<int32_t>(i / kSignatureWords),
                      static_cast<int32_t>(i % kSignatureWords)});
    }
  }
  return hits;
}

bool WindowAgrees(const uint64_t* window, const uint64_t* query, int32_t word) {
  return std::popcount((window[word] ^ query[word]) & kKeyMask) <= kWindowKeyFlips;
}

}  // namespace semshare
