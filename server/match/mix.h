// Mix: spreads every bit of a word over the word (the finalizer of SplitMix64).
//
// Thread-safe: a pure function.
#ifndef SEMSHARE_SERVER_MATCH_MIX_H_
#define SEMSHARE_SERVER_MATCH_MIX_H_

#include <cstdint>

namespace semshare {

constexpr uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_MIX_H_
