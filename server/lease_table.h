// LeaseTable: matches that workers hold. A lease pins the chunks of its match until it is released
// or times out; it is remembered for a while after, so that a late caller learns what happened.
//
// LeaseTable is thread-safe. A MatchLease is immutable but for its rows, which are thread-safe;
// open streams share its ownership, so the pins outlive the last of them.
#ifndef SEMSHARE_SERVER_LEASE_TABLE_H_
#define SEMSHARE_SERVER_LEASE_TABLE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "kernels/base/mutex.h"
#include "server/match/types.h"
#include "server/match_rows.h"
#include "server/model.h"
#include "storage/catalog.h"

namespace semshare {

struct MatchLease {
  std::string id;  // 16 random bytes
  std::string tenant;
  ModelPtr model;
  std::vector<ReferencePtr> references;  // by Segment::reference
  std::vector<Segment> segments;
  int64_t target_tokens = 0;
  int64_t matched_tokens = 0;
  std::vector<ChunkPin> pins;
  // Per reference, per chunk of it: offset in the arena, -1 where the match needs no row of it.
  std::vector<std::vector<int64_t>> chunk_offsets;

  // What every stream of the match reads by.
  MatchRowsPtr Rows() const {
    return rows_.Get([this] { return BuildRows(); });
  }
  // Makes it ahead of the first stream. `claim` is kept until then, or until the lease ends.
  void PrepareRows(std::shared_ptr<void> claim) const {
    rows_.Prepare([this] { return BuildRows(); }, std::move(claim));
  }

 private:
  MatchRows BuildRows() const { return BuildMatchRows(segments, chunk_offsets, model->layout()); }

  mutable SharedMatchRows rows_;
};
using MatchLeasePtr = std::shared_ptr<const MatchLease>;

// 16 random bytes from the operating system.
std::string RandomId();

class LeaseTable {
 public:
  // At most `limit` active leases. One that nobody opens lives for `timeout_ms`, one that is opened
  // again and again for `max_ms`; one ended is remembered for `memory_ms`.
  LeaseTable(int limit, int64_t timeout_ms, int64_t max_ms, int64_t memory_ms)
      : limit_(limit), timeout_ms_(timeout_ms), max_ms_(max_ms), memory_ms_(memory_ms) {}

  int64_t timeout_ms() const { return timeout_ms_; }

  // RESOURCE_EXHAUSTED if `limit` leases are active.
  absl::Status Add(MatchLeasePtr lease, int64_t now_ms);

  // An active lease, its timeout started anew within the longest life. NOT_FOUND: never issued,
  // another tenant's, released or forgotten. ABORTED: expired.
  absl::StatusOr<MatchLeasePtr> Open(std::string_view tenant, std::string_view id, int64_t now_ms);

  // Idempotent as long as the lease is remembered. Returns whether this call ended an active lease.
  absl::StatusOr<bool> Release(std::string_view tenant, std::string_view id, int64_t now_ms);

  // Ends what timed out, forgets what is old. Returns how many expired.
  int64_t Expire(int64_t now_ms);

  int64_t active() const;

 private:
  enum class State { kActive, kReleased, kExpired };
  struct Entry {
    State state = State::kActive;
    std::string tenant;
    int64_t deadline_ms = 0;       // of the lease, or of our memory of it
    int64_t last_deadline_ms = 0;  // which no extension passes
    MatchLeasePtr lease;           // null once ended
  };
  // Ends an active entry; the lease is handed out so that it dies outside of the lock.
  MatchLeasePtr EndLocked(Entry* entry, State state, int64_t now_ms)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int limit_;
  const int64_t timeout_ms_;
  const int64_t max_ms_;
  const int64_t memory_ms_;

  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  int64_t active_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_LEASE_TABLE_H_
