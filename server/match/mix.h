// Mix: spreads every bit of a word over the word (the finalizer of SplitMix64).
//
// Thread-safe: a pure function.
#ifndef SEMSHARE_SERVER_MATCH_MIX_H_
#define SEMSHARE_SERVER_MATCH_MIX_H_

#include <cstdint>

namespace semshare {

constexpr uint64_t kMixFirst = 0xbf58476d1ce4e5b9u;
constexpr uint64_t kMixSecond = 0x94d049bb133111ebu;

constexpr uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * kMixFirst;
  value = (value ^ (value >> 27)) * kMixSecond;
  return value ^ (value >> 31);
}

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_MIX_H_
