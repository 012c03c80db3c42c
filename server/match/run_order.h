// Runs, and whether they keep the order in which a source has them.
//
// Thread-safe: pure functions over values.
#ifndef SEMSHARE_SERVER_MATCH_RUN_ORDER_H_
#define SEMSHARE_SERVER_MATCH_RUN_ORDER_H_

#include <cstdint>
#include <cstdlib>
#include <vector>

namespace semshare {

// A stretch of the target that equals a stretch of a source.
struct Run {
  int64_t target = 0;
  int source = 0;        // its number, from 0
  int64_t position = 0;  // in the source
  int64_t tokens = 0;

  int64_t target_end() const { return target + tokens; }
  // How far its tokens have moved.
  int64_t displacement() const { return std::abs(position - target); }
};

// Words and lines that are alike are found anywhere; a passage is at least this long.
inline constexpr int64_t kPassageTokens = 16;
// More than this share of the tokens in passages makes another order.
inline constexpr double kReorderedShare = 0.02;

// Whether passages are out of one source's order, or come from another source. `runs` are ascending
// in the target and do not overlap.
bool IsReordered(std::vector<Run> runs);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_RUN_ORDER_H_
