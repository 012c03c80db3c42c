#include "server/match/seed_table.h"

#include <algorithm>

#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
constexpr uint64_t kBase = 0x0b4e0ef37a1c5d93u % kPrime;
// Most places differ early: that many symbols are compared before hashes are asked.
constexpr int64_t kDirectCompares = 16;

uint64_t Reduce(uint64_t value) {
  value = (value & kPrime) + (value >> 61);
  return value >= kPrime ? value - kPrime : value;
}

uint64_t MultiplyModulo(uint64_t a, uint64_t b) {
  using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return Reduce(static_cast<uint64_t>(product & kPrime) + static_cast<uint64_t>(product >> 61));
}

std::vector<uint32_t> Concatenate(absl::Span<const std::vector<uint32_t>> sources) {
  size_t total = 0;
  for (const std::vector<uint32_t>& source : sources) total += source.size();
  std::vector<uint32_t> text;
  text.reserve(total);
  for (const std::vector<uint32_t>& source : sources) {
    text.insert(text.end(), source.begin(), source.end());
  }
  return text;
}

// The largest n in [0, limit] for which `equal(n)` holds, given that equal(0) holds and that it
// holds below wherever it holds: gallop, then halve.
template <typename Equal>
int64_t LongestEqual(int64_t limit, Equal equal) {
  int64_t low = 0;
  int64_t step = kDirectCompares;
  while (low + step <= limit && equal(low + step)) {
    low += step;
    step *= 2;
  }
  int64_t high = std::min(low + step, limit + 1);  // equal(high) is false, or high is past the end
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (equal(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace

PrefixHash::PrefixHash(absl::Span<const uint32_t> symbols, const std::vector<uint64_t>& powers)
    : powers_(powers), prefix_(symbols.size() + 1) {
  for (size_t i = 0; i < symbols.size(); ++i) {
    prefix_[i + 1] = Reduce(MultiplyModulo(prefix_[i], kBase) + symbols[i] + 1);
  }
}

std::vector<uint64_t> PrefixHash::Powers(int64_t count) {
  std::vector<uint64_t> powers(count);
  uint64_t power = 1;
  for (uint64_t& entry : powers) {
    entry = power;
    power = MultiplyModulo(power, kBase);
  }
  return powers;
}

uint64_t PrefixHash::Range(int64_t begin, int64_t tokens) const {
  const uint64_t head = MultiplyModulo(prefix_[begin], powers_[tokens]);
  return Reduce(prefix_[begin + tokens] + kPrime - head);
}

SeedTable::SeedTable(absl::Span<const uint32_t> target,
                     absl::Span<const std::vector<uint32_t>> sources, int64_t seed_tokens)
    : target_(target),
      seed_tokens_(seed_tokens),
      text_(Concatenate(sources)),
      powers_(PrefixHash::Powers(static_cast<int64_t>(std::max(target.size(), text_.size())) +
                                 seed_tokens + 1)),
      target_hash_(target, powers_),
      text_hash_(text_, powers_) {
  SEMSHARE_CHECK(seed_tokens >= 1);
  SEMSHARE_CHECK(target.size() + text_.size() < (uint64_t{1} << 31));
  begins_.push_back(0);
  for (const std::vector<uint32_t>& source : sources) {
    begins_.push_back(begins_.back() + static_cast<int64_t>(source.size()));
  }
  FillBuckets();
}

// A counting sort of the seeds' places by bucket keeps each bucket ascending.
void SeedTable::FillBuckets() {
  int bits = 4;
  while ((size_t{1} << bits) < text_.size() * 2) ++bits;
  shift_ = 64 - bits;
  bucket_begins_.assign((size_t{1} << bits) + 1, 0);
  std::vector<uint32_t> bucket_of(text_.size());
  int64_t seeds = 0;
  for (int source = 0; source < sources(); ++source) {
    for (int64_t place = Begin(source); place + seed_tokens_ <= End(source); ++place) {
      bucket_of[place] = static_cast<uint32_t>(Bucket(text_hash_.Range(place, seed_tokens_)));
      ++bucket_begins_[bucket_of[place] + 1];
      ++seeds;
    }
  }
  for (size_t b = 1; b < bucket_begins_.size(); ++b) bucket_begins_[b] += bucket_begins_[b - 1];
  places_.resize(seeds);
  std::vector<int32_t> next(bucket_begins_.begin(), bucket_begins_.end() - 1);
  for (int source = 0; source < sources(); ++source) {
    for (int64_t place = Begin(source); place + seed_tokens_ <= End(source); ++place) {
      places_[next[bucket_of[place]]++] = static_cast<int32_t>(place);
    }
  }
}

int SeedTable::SourceOf(int64_t place) const {
  // Few sources: the last one that begins at or before the place (empty ones are passed over).
  const auto after = std::upper_bound(begins_.begin(), begins_.end(), place);
  return static_cast<int>(after - begins_.begin()) - 1;
}

absl::Span<const int32_t> SeedTable::Occurrences(int64_t target, int64_t hint) const {
  if (target + seed_tokens_ > target_tokens()) return {};
  const size_t bucket = Bucket(target_hash_.Range(target, seed_tokens_));
  const int64_t begin = bucket_begins_[bucket];
  const int64_t count = bucket_begins_[bucket + 1] - begin;
  const absl::Span<const int32_t> all(places_.data() + begin, count);
  if (count <= kMaxOccurrences) return all;
  const int64_t nearest = std::lower_bound(all.begin(), all.end(), hint) - all.begin();
  const int64_t first =
      std::clamp<int64_t>(nearest - kCommonOccurrences / 2, 0, count - kCommonOccurrences);
  return all.subspan(first, kCommonOccurrences);
}

int64_t SeedTable::Forward(int64_t target, int64_t place) const {
  const int64_t limit = std::min(target_tokens() - target, End(SourceOf(place)) - place);
  const int64_t direct = Verified(target, place, std::min(limit, kDirectCompares));
  if (direct < kDirectCompares) return direct;
  return direct + LongestEqual(limit - direct, [&](int64_t tokens) {
           return target_hash_.Range(target + direct, tokens) ==
                  text_hash_.Range(place + direct, tokens);
         });
}

int64_t SeedTable::Backward(int64_t target, int64_t place) const {
  const int64_t limit = std::min(target, place - Begin(SourceOf(place)));
  int64_t direct = 0;
  const int64_t direct_limit = std::min(limit, kDirectCompares);
  while (direct < direct_limit && target_[target - direct - 1] == text_[place - direct - 1]) {
    ++direct;
  }
  if (direct < kDirectCompares) return direct;
  return direct + LongestEqual(limit - direct, [&](int64_t tokens) {
           return target_hash_.Range(target - direct - tokens, tokens) ==
                  text_hash_.Range(place - direct - tokens, tokens);
         });
}

int64_t SeedTable::Verified(int64_t target, int64_t place, int64_t tokens) const {
  int64_t equal = 0;
  while (equal < tokens && target_[target + equal] == text_[place + equal]) ++equal;
  return equal;
}

}  // namespace semshare
