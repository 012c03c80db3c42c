#include "server/match/seed_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

// Compared at once where two texts go on agreeing.
constexpr size_t kBlock = 64;
constexpr size_t kBlockBytes = kBlock * sizeof(uint32_t);

}  // namespace

int64_t CommonPrefix(absl::Span<const uint32_t> a, absl::Span<const uint32_t> b) {
  const size_t limit = std::min(a.size(), b.size());
  size_t equal = 0;
  // Most places differ early, before a block is worth its call.
  while (equal < std::min(limit, kBlock) && a[equal] == b[equal]) ++equal;
  if (equal < kBlock) return static_cast<int64_t>(equal);
  while (equal + kBlock <= limit &&
         std::memcmp(a.data() + equal, b.data() + equal, kBlockBytes) == 0) {
    equal += kBlock;
  }
  while (equal < limit && a[equal] == b[equal]) ++equal;
  return static_cast<int64_t>(equal);
}

int64_t CommonSuffix(absl::Span<const uint32_t> a, absl::Span<const uint32_t> b) {
  const size_t limit = std::min(a.size(), b.size());
  const uint32_t* a_end = a.data() + a.size();
  const uint32_t* b_end = b.data() + b.size();
  size_t equal = 0;
  while (equal < std::min(limit, kBlock) && *(a_end - equal - 1) == *(b_end - equal - 1)) ++equal;
  if (equal < kBlock) return static_cast<int64_t>(equal);
  while (equal + kBlock <= limit &&
         std::memcmp(a_end - equal - kBlock, b_end - equal - kBlock, kBlockBytes) == 0) {
    equal += kBlock;
  }
  while (equal < limit && *(a_end - equal - 1) == *(b_end - equal - 1)) ++equal;
  return static_cast<int64_t>(equal);
}

SeedHasher::SeedHasher(absl::Span<const uint32_t> text, int64_t seed_tokens)
    : text_(text), seed_tokens_(seed_tokens) {
  SEMSHARE_CHECK(seed_tokens >= 1 && static_cast<size_t>(seed_tokens) <= text.size());
  for (; end_ + 1 < seed_tokens; ++end_) {
    rolling_ = rolling_ * kMultiplier + Symbol(end_);
    leading_ *= kMultiplier;
  }
}

// A counting sort of the positions by bucket keeps each bucket ascending.
SeedTable::SeedTable(absl::Span<const uint32_t> target, std::vector<int32_t> positions,
                     int64_t seed_tokens)
    : seed_tokens_(seed_tokens) {
  // Few seeds get far more buckets than they fill, so that most lookups end at an empty one; many
  // get no more than what is cheap to clear.
  int bits = 12;
  while ((size_t{1} << bits) < positions.size() * 2) ++bits;
  shift_ = 64 - bits;
  begins_.assign((size_t{1} << bits) + 1, 0);
  held_.assign((size_t{1} << bits) / 64, 0);
  if (positions.empty()) return;
  SEMSHARE_CHECK(positions.back() + seed_tokens <= static_cast<int64_t>(target.size()));
  std::vector<uint32_t> buckets(positions.size());
  SeedHasher hasher(target, seed_tokens);
  int32_t at = 0;
  for (size_t i = 0; i < positions.size(); ++at) {
    const auto bucket = static_cast<uint32_t>(Bucket(hasher.Next()));
    if (positions[i] != at) continue;
    buckets[i++] = bucket;
    ++begins_[bucket + 1];
    held_[bucket / 64] |= uint64_t{1} << (bucket % 64);
  }
  for (size_t b = 1; b < begins_.size(); ++b) begins_[b] += begins_[b - 1];
  positions_.resize(positions.size());
  std::vector<int32_t> next(begins_.begin(), begins_.end() - 1);
  for (size_t i = 0; i < positions.size(); ++i) positions_[next[buckets[i]]++] = positions[i];
}

absl::Span<const int32_t> SeedTable::Nearest(absl::Span<const int32_t> all, int64_t hint) {
  const auto count = static_cast<int64_t>(all.size());
  const int64_t nearest = std::lower_bound(all.begin(), all.end(), hint) - all.begin();
  const int64_t first =
      std::clamp<int64_t>(nearest - kCommonOccurrences / 2, 0, count - kCommonOccurrences);
  return all.subspan(static_cast<size_t>(first), kCommonOccurrences);
}

}  // namespace semshare
