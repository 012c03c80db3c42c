#include "kernels/cpu/hamming.h"

#include <algorithm>
#include <bit>

#include "kernels/base/mutex.h"
#include "kernels/cpu/operations.h"

// This file is compiled once per instruction set: population count is one instruction on nearly
// every machine, but not on the oldest one that the build targets.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/hamming.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef SEMSHARE_KERNELS_CPU_HAMMING_ONCE
#define SEMSHARE_KERNELS_CPU_HAMMING_ONCE
namespace semshare {
namespace {

struct Neighbour {
  int32_t distance = kNoDistance;
  int64_t index = -1;
};

// The k nearest offered so far, nearest first; a tie goes to the lower index. An array kept in
// order: k is at most 64, and nearly every offer is refused by one comparison.
class Nearest {
 public:
  explicit Nearest(int k) : k_(k) {}

  // An offer at this distance or farther cannot enter, if its index is above all before it.
  int32_t bound() const { return size_ < k_ ? kNoDistance : entries_[k_ - 1].distance; }
  int size() const { return size_; }
  const Neighbour& entry(int i) const { return entries_[i]; }

  void Offer(Neighbour offer) {
    if (size_ == k_ && !Before(offer, entries_[k_ - 1])) return;
    int at = size_ < k_ ? size_++ : k_ - 1;
    for (; at > 0 && Before(offer, entries_[at - 1]); --at) entries_[at] = entries_[at - 1];
    entries_[at] = offer;
  }

 private:
  static bool Before(const Neighbour& a, const Neighbour& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.index < b.index;
  }

  const int k_;
  int size_ = 0;
  Neighbour entries_[64];
};

// Codes that are scanned against one query. With first_words, those only whose first word is at
// most `within` bits from the query's.
struct CodeScan {
  const uint64_t* codes;
  const uint64_t* live;
  const uint64_t* query;
  int64_t count;
  int32_t words;
  const uint64_t* first_words = nullptr;
  int32_t within = 64;
};

}  // namespace
}  // namespace semshare
#endif  // SEMSHARE_KERNELS_CPU_HAMMING_ONCE

HWY_BEFORE_NAMESPACE();
namespace semshare {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// kWords == 0: `words` is known at run time only.
template <int kWords>
HWY_INLINE int32_t Distance(const uint64_t* a, const uint64_t* b, int32_t words) {
  int32_t distance = 0;
  for (int32_t i = 0; i < (kWords == 0 ? words : kWords); ++i) {
    distance += __builtin_popcountll(a[i] ^ b[i]);
  }
  return distance;
}

// Of the live codes 64 * word + i those, as bits i, whose first word is at most `within` bits from
// the query's. What is not live is not even read: it may be being written.
uint64_t FirstWordsWithin(const CodeScan& scan, int64_t word, uint64_t live, int32_t within) {
  const uint64_t* first_words = scan.first_words + word * 64;
  uint64_t near = 0;
  if (live != ~uint64_t{0}) {
    for (; live != 0; live &= live - 1) {
      const int i = __builtin_ctzll(live);
      const bool is_near = Distance<1>(first_words + i, scan.query, 1) <= within;
      near |= uint64_t{is_near} << i;
    }
    return near;
  }
  const hn::CappedTag<uint64_t, 8> d;
  const hn::RebindToSigned<decltype(d)> signed_d;
  const auto query = hn::Set(d, scan.query[0]);
  const auto beyond = hn::Set(signed_d, int64_t{within} + 1);
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < 64; i += lanes) {
    const auto distances = hn::PopulationCount(hn::Xor(hn::LoadU(d, first_words + i), query));
    uint8_t bits[8];  // of which one is written: a load of more would wait for the store
    hn::StoreMaskBits(signed_d, hn::Lt(hn::BitCast(signed_d, distances), beyond), bits);
    near |= uint64_t{bits[0]} << i;
  }
  return near;
}

// Offers the live codes of the words [begin, end) of the live bitset.
template <int kWords>
void ScanWords(const CodeScan& scan, int64_t begin, int64_t end, Nearest& nearest) {
  constexpr int64_t kWordsAtOnce = 16;
  uint64_t wanted[kWordsAtOnce];
  int32_t bound = nearest.bound();
  for (int64_t first = begin; first < end; first += kWordsAtOnce) {
    const int64_t words = std::min(kWordsAtOnce, end - first);
    for (int64_t w = 0; w < words; ++w) {
      const int64_t word = first + w;
      const int64_t left = scan.count - word * 64;
      uint64_t live = scan.live[word];
      if (left < 64) live &= (uint64_t{1} << left) - 1;
      if (scan.first_words != nullptr && live != 0) {
        live = FirstWordsWithin(scan, word, live, std::min(scan.within, bound));
        // Few and far between: their memory is fetched while the next words are looked at.
        for (uint64_t near = live; near != 0; near &= near - 1) {
          __builtin_prefetch(scan.codes + (word * 64 + __builtin_ctzll(near)) * scan.words);
        }
      }
      wanted[w] = live;
    }
    for (int64_t w = 0; w < words; ++w) {
      for (uint64_t codes = wanted[w]; codes != 0; codes &= codes - 1) {
        const int64_t index = (first + w) * 64 + __builtin_ctzll(codes);
        const int32_t distance =
            Distance<kWords>(scan.codes + index * scan.words, scan.query, scan.words);
        if (distance >= bound) continue;
        nearest.Offer(Neighbour{distance, index});
        bound = nearest.bound();
      }
    }
  }
}

void ScanLive(const CodeScan& scan, int64_t begin, int64_t end, Nearest& nearest) {
  if (scan.words == 4) return ScanWords<4>(scan, begin, end, nearest);
  ScanWords<0>(scan, begin, end, nearest);
}

template <int kWords>
Neighbour NearestWords(const CodeScan& scan, int64_t begin, int64_t end) {
  Neighbour best;
  for (int64_t index = begin; index < end; ++index) {
    const int32_t distance =
        Distance<kWords>(scan.codes + index * scan.words, scan.query, scan.words);
    if (distance < best.distance) best = Neighbour{distance, index};
  }
  return best;
}

Neighbour NearestInWindow(const CodeScan& scan, int64_t begin, int64_t end) {
  return scan.words == 4 ? NearestWords<4>(scan, begin, end) : NearestWords<0>(scan, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace semshare
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace semshare {
namespace {

HWY_EXPORT(ScanLive);
HWY_EXPORT(NearestInWindow);

constexpr int64_t kLiveWordsPerPiece = 256;  // 16,384 codes
constexpr int64_t kQueriesPerPiece = 64;
// First words that are looked at to see how near the shortlist's are.
constexpr int64_t kSampledWords = 512;

// The distance within which about `shortlist` of the live codes' first words lie, by an even
// sample.
int32_t ShortlistDistance(const CodeScan& scan, int64_t shortlist) {
  int64_t counts[65] = {};
  for (int64_t i = 0; i < kSampledWords; ++i) {
    const int64_t at = i * scan.count / kSampledWords;
    if ((scan.live[at / 64] >> (at % 64) & 1) == 0) continue;
    ++counts[std::popcount(scan.first_words[at] ^ scan.query[0])];
  }
  int32_t within = 0;
  int64_t sampled = counts[0];
  while (within < 64 && sampled * scan.count < shortlist * kSampledWords) {
    sampled += counts[++within];
  }
  return within;
}

}  // namespace

void HammingTopK(const HammingTopKArgs& args, WorkerPool& pool) {
  const uint64_t* queries = ArrayOf<const uint64_t>(args.queries);
  int64_t* indices = ArrayOf<int64_t>(args.indices);
  int32_t* distances = ArrayOf<int32_t>(args.distances);
  CodeScan scan{ArrayOf<const uint64_t>(args.codes), ArrayOf<const uint64_t>(args.live), queries,
                args.count, args.words};
  for (int64_t query = 0; query < args.query_count; ++query) {
    scan.query = queries + query * args.words;
    if (args.shortlist > 0 && args.shortlist < args.count) {
      scan.first_words = ArrayOf<const uint64_t>(args.first_words);
      scan.within = ShortlistDistance(scan, args.shortlist);
    }
    Mutex mutex;
    Nearest merged(args.k);  // guarded by mutex during the loop
    pool.ParallelFor((args.count + 63) / 64, kLiveWordsPerPiece, [&](int64_t begin, int64_t end) {
      Nearest nearest(args.k);
      HWY_DYNAMIC_DISPATCH(ScanLive)(scan, begin, end, nearest);
      MutexLock lock(&mutex);
      for (int i = 0; i < nearest.size(); ++i) merged.Offer(nearest.entry(i));
    });
    for (int i = 0; i < args.k; ++i) {
      const Neighbour entry = i < merged.size() ? merged.entry(i) : Neighbour{};
      indices[query * args.k + i] = entry.index;
      distances[query * args.k + i] = entry.distance;
    }
  }
}

void NearestCode(const NearestCodeArgs& args, WorkerPool& pool) {
  const uint64_t* queries = ArrayOf<const uint64_t>(args.queries);
  const uint64_t* codes = ArrayOf<const uint64_t>(args.codes);
  const int64_t* windows = ArrayOf<const int64_t>(args.windows);
  int64_t* indices = ArrayOf<int64_t>(args.indices);
  int32_t* distances = ArrayOf<int32_t>(args.distances);
  pool.ParallelFor(args.query_count, kQueriesPerPiece, [&](int64_t begin, int64_t end) {
    for (int64_t query = begin; query < end; ++query) {
      const CodeScan scan{codes, nullptr, queries + query * args.words, args.count, args.words};
      const Neighbour best =
          HWY_DYNAMIC_DISPATCH(NearestInWindow)(scan, windows[2 * query], windows[2 * query + 1]);
      indices[query] = best.index;
      distances[query] = best.distance;
    }
  });
}

}  // namespace semshare
#endif  // HWY_ONCE
