// MatchTables: a lease and its rows, from which the realign of any layer and plane is described.
// Both the inline transport (frames) and shared memory (a KvView) read them.
//
// Thread-safe after Create: immutable. Keeps the lease, and so the pins, alive; must not die before
// the last Event of work that reads it is done.
#ifndef SEMSHARE_SERVER_MATCH_TABLES_H_
#define SEMSHARE_SERVER_MATCH_TABLES_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "server/lease_table.h"

namespace semshare {

// Layers [begin, end) of a model.
struct LayerRange {
  int begin = 0;
  int end = 0;
};

// What a request says, `end` 0 meaning all. INVALID_ARGUMENT if it is empty or out of range.
absl::StatusOr<LayerRange> ResolveLayers(const KvLayout& layout, int64_t begin, int64_t end);

class MatchTables {
 public:
  // `arena` is where the lease's chunks lie.
  MatchTables(MatchLeasePtr lease, MemorySpan arena)
      : lease_(std::move(lease)), arena_(arena), rows_(lease_->Rows()) {}

  const KvLayout& layout() const { return lease_->model->layout(); }
  // See MatchRows.
  const std::vector<RealignRow>& rows() const { return rows_->rows; }
  const std::vector<int64_t>& targets() const { return rows_->targets; }

  // Everything but the destination. `rows` are rows of this match, with any slots.
  RealignArgs Args(int layer, int plane, absl::Span<const RealignRow> rows) const;

 private:
  const MatchLeasePtr lease_;
  const MemorySpan arena_;
  const MatchRowsPtr rows_;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_TABLES_H_
