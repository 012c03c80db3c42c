// MatchRows: where every row of a match comes from and how far it turns. It depends on the match
// alone, not on who reads it, so all streams of a lease share it, and it can be made ahead of them.
//
// Thread-safe.
#ifndef SEMSHARE_SERVER_MATCH_ROWS_H_
#define SEMSHARE_SERVER_MATCH_ROWS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"
#include "server/match/types.h"
#include "storage/kv_layout.h"

namespace semshare {

// Immutable. About 32 bytes, and the angles of every rotary, for each matched token.
struct MatchRows {
  // One for each matched token, ascending in the target; slot = row number.
  std::vector<RealignRow> rows;
  std::vector<int64_t> targets;            // target position of each row
  std::vector<std::vector<float>> angles;  // per rotary of the layout
  int64_t angle_rows = 0;
};
using MatchRowsPtr = std::shared_ptr<const MatchRows>;

// `chunk_offsets` per reference, per chunk of it: where it lies in the arena.
MatchRows BuildMatchRows(absl::Span<const Segment> segments,
                         absl::Span<const std::vector<int64_t>> chunk_offsets,
                         const KvLayout& layout);

// The rows of one lease, made once for as long as somebody holds them.
class SharedMatchRows {
 public:
  using Builder = absl::FunctionRef<MatchRows()>;

  // Whoever comes first builds; others wait for that.
  MatchRowsPtr Get(Builder build);

  // Makes the rows now and keeps them for the first Get. `claim` is kept as long.
  void Prepare(Builder build, std::shared_ptr<void> claim);

 private:
  MatchRowsPtr GetLocked(Builder build) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  std::weak_ptr<const MatchRows> rows_ ABSL_GUARDED_BY(mutex_);
  MatchRowsPtr kept_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<void> claim_ ABSL_GUARDED_BY(mutex_);
  bool read_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_ROWS_H_
