#include "server/match/winnow.h"

#include <algorithm>
#include <memory>

#include "server/match/mix.h"

// This file is compiled once per instruction set; the best one is chosen for each prompt.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/match/winnow.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef SEMSHARE_SERVER_MATCH_WINNOW_ONCE
#define SEMSHARE_SERVER_MATCH_WINNOW_ONCE
namespace semshare {
namespace {

constexpr uint64_t kMultiplier = 0xd6e8feb86659fd93u;
// Vectors may end so far behind an array's last element that counts.
constexpr int64_t kPadding = 64;

// Ranks order the grams of a window: by the upper half of their hashes, of equal ones the later
// first, which is in more of the windows to come.
constexpr uint64_t kRankHash = ~uint64_t{0xffffffff};
int64_t PositionOfRank(uint64_t rank) { return static_cast<int64_t>(~rank & ~kRankHash); }

// Arrays of `tokens` + kPadding, filled from the front; only what is said to count means anything.
struct GramArrays {
  explicit GramArrays(int64_t tokens)
      : memory(std::make_unique_for_overwrite<uint64_t[]>(4 * (tokens + kPadding))),
        ids(memory.get()),
        part(ids + tokens + kPadding),
        hashes(part + tokens + kPadding),
        ranks(hashes + tokens + kPadding) {
    for (uint64_t* array : {ids, part, hashes, ranks}) std::fill_n(array + tokens, kPadding, 0);
  }

  const std::unique_ptr<uint64_t[]> memory;
  uint64_t* const ids;
  uint64_t* const part;
  uint64_t* const hashes;
  uint64_t* const ranks;
};

}  // namespace
}  // namespace semshare
#endif  // SEMSHARE_SERVER_MATCH_WINNOW_ONCE

HWY_BEFORE_NAMESPACE();
namespace semshare {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<uint64_t>;

template <class V>
V MixLanes(V value) {
  value = hn::Mul(hn::Xor(value, hn::ShiftRight<30>(value)), hn::Set(D(), kMixFirst));
  value = hn::Mul(hn::Xor(value, hn::ShiftRight<27>(value)), hn::Set(D(), kMixSecond));
  return hn::Xor(value, hn::ShiftRight<31>(value));
}

// to[i] = a[i] * factor + b[i], for i in [0, count). May run in place, on what lies ahead.
void Combine(const uint64_t* a, uint64_t factor, const uint64_t* b, int64_t count, uint64_t* to) {
  const D d;
  const auto multiplier = hn::Set(d, factor);
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::Add(hn::Mul(hn::LoadU(d, a + i), multiplier), hn::LoadU(d, b + i)), d, to + i);
  }
}

// Keyed hashes and ranks of the grams of `length` tokens. The ids are mixed with the key before
// they enter the sum, so that without the key nobody can choose ids whose grams collide or always
// win. The sum over a gram, a polynomial, is made of sums over 1, 2, 4, ... tokens.
void HashGrams(absl::Span<const uint32_t> ids, int64_t length, uint64_t key,
               const GramArrays& arrays) {
  const D d;
  const hn::Rebind<uint32_t, D> d32;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto tokens = static_cast<int64_t>(ids.size());
  const auto keys = hn::Set(d, key);
  const auto one = hn::Set(d, 1);
  int64_t at = 0;
  for (; at + lanes <= tokens; at += lanes) {
    const auto id = hn::PromoteTo(d, hn::LoadU(d32, ids.data() + at));
    hn::StoreU(MixLanes(hn::Xor(keys, hn::Add(id, one))), d, arrays.ids + at);
  }
  for (; at < tokens; ++at) arrays.ids[at] = Mix(key ^ (uint64_t{ids[at]} + 1));

  int64_t summed = 0;             // tokens of the sums in `part`
  uint64_t part_factor = 1;       // kMultiplier ^ summed
  uint64_t factor = kMultiplier;  // kMultiplier ^ span
  for (int64_t span = 1; span <= length; span *= 2) {
    // arrays.ids[i] is the sum over [i, i + span).
    if ((length & span) != 0) {
      const int64_t count = tokens - span - summed + 1;
      if (summed == 0) {
        std::copy_n(arrays.ids, count, arrays.part);
      } else {
        Combine(arrays.ids, part_factor, arrays.part + span, count, arrays.part);
      }
      summed += span;
      part_factor *= factor;
    }
    if (2 * span > length) break;
    Combine(arrays.ids, factor, arrays.ids + span, tokens - 2 * span + 1, arrays.ids);
    factor *= factor;
  }
  const auto positions = hn::Iota(d, 0);
  const auto upper = hn::Set(d, kRankHash);
  const auto lower = hn::Set(d, ~kRankHash);
  for (int64_t i = 0; i + length <= tokens; i += lanes) {
    const auto hash = MixLanes(hn::Xor(hn::LoadU(d, arrays.part + i), keys));
    const auto position = hn::Add(positions, hn::Set(d, static_cast<uint64_t>(i)));
    hn::StoreU(hash, d, arrays.hashes + i);
    hn::StoreU(hn::Or(hn::And(hash, upper), hn::AndNot(position, lower)), d, arrays.ranks + i);
  }
}

// ranks[i] = the smallest of ranks[i, i + window), for i in [0, count - window], by the smallest of
// 2, 4, ... of them.
void SlideMinimum(int64_t count, int64_t window, uint64_t* ranks) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t span = 1; span < window;) {
    const int64_t step = std::min(span, window - span);
    for (int64_t i = 0; i + span + step <= count; i += lanes) {
      hn::StoreU(hn::Min(hn::LoadU(d, ranks + i), hn::LoadU(d, ranks + i + step)), d, ranks + i);
    }
    span += step;
  }
}

void RankWindows(absl::Span<const uint32_t> ids, int64_t length, int64_t window, uint64_t key,
                 const GramArrays& arrays) {
  HashGrams(ids, length, key, arrays);
  SlideMinimum(static_cast<int64_t>(ids.size()) - length + 1, window, arrays.ranks);
}

}  // namespace HWY_NAMESPACE
}  // namespace semshare
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace semshare {

HWY_EXPORT(RankWindows);

std::vector<Gram> Winnow(absl::Span<const uint32_t> ids, const GramOptions& options) {
  const auto tokens = static_cast<int64_t>(ids.size());
  const int64_t length = options.gram_tokens;
  const int64_t count = tokens - length + 1;
  if (length <= 0 || count <= 0) return {};
  const int64_t window = std::min<int64_t>(std::max(1, options.winnow_window), count);
  const GramArrays arrays(tokens);
  const uint64_t key = Mix(options.key + 0x9e3779b97f4a7c15u);
  HWY_DYNAMIC_DISPATCH(RankWindows)(ids, length, window, key, arrays);
  // Every position is written; it stays if it is another than the one before.
  const int64_t windows = count - window + 1;
  auto kept = std::make_unique_for_overwrite<int32_t[]>(windows);
  int64_t grams = 0;
  int64_t last = -1;
  for (int64_t i = 0; i < windows; ++i) {
    const int64_t position = PositionOfRank(arrays.ranks[i]);
    kept[grams] = static_cast<int32_t>(position);
    grams += position != last ? 1 : 0;
    last = position;
  }
  std::vector<Gram> result(grams);
  for (int64_t i = 0; i < grams; ++i) result[i] = {arrays.hashes[kept[i]], kept[i]};
  return result;
}

std::vector<uint64_t> DistinctHashes(absl::Span<const Gram> grams) {
  std::vector<uint64_t> hashes;
  hashes.reserve(grams.size());
  for (const Gram& gram : grams) hashes.push_back(gram.hash);
  std::sort(hashes.begin(), hashes.end());
  hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
  return hashes;
}

}  // namespace semshare
#endif  // HWY_ONCE
