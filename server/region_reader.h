// RegionReader: realigns a match straight into a worker's memory, a layer at a time.
//
// Not thread-safe. Keeps the lease, and so the pins, alive; must not die before the last Event of
// its work is done. The memory of the view must stay mapped as long.
#ifndef SEMSHARE_SERVER_REGION_READER_H_
#define SEMSHARE_SERVER_REGION_READER_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/match_tables.h"
#include "server/transport/kv_view.h"

namespace semshare {

class RegionReader {
 public:
  // Layers [layer_begin, layer_end), layer_end 0: all. `prompt_tokens`: length of the target, for
  // the view's slots. INVALID_ARGUMENT names what is out of range; nothing has been written then.
  static absl::StatusOr<std::unique_ptr<RegionReader>> Create(MatchLeasePtr lease,
                                                              int64_t layer_begin,
                                                              int64_t layer_end, MemorySpan arena,
                                                              KvView view);

  bool done() const { return layer_ == layer_end_; }

  // Enqueues the rows of the next layer; returns its number. They are in place once an event
  // recorded after it is done. REQUIRES: !done().
  absl::StatusOr<int> EnqueueLayer(Backend* backend, Lane& lane);

  // Bytes of the rows of a layer that are not left out.
  int64_t layer_bytes(int layer) const;

 private:
  RegionReader(MatchLeasePtr lease, MemorySpan arena) : tables_(std::move(lease), arena) {}

  const MatchTables tables_;
  KvView view_;
  std::vector<RealignRow> rows_;  // of the match, with the view's slots
  int64_t rows_written_ = 0;
  int layer_ = 0;
  int layer_end_ = 0;
  size_t plane_ = 0;  // in view_.planes
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_REGION_READER_H_
