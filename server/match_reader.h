// MatchReader: turns a lease into realigned frames, in (layer, plane, row) order.
//
// A frame is realigned straight into the caller's staging memory.
//
// Not thread-safe. Keeps the lease, and so the pins, alive; must not die before the last Event of
// its work is done.
#ifndef SEMSHARE_SERVER_MATCH_READER_H_
#define SEMSHARE_SERVER_MATCH_READER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/match_tables.h"

namespace semshare {

struct ReadFrame {
  int64_t layer = 0;
  int64_t plane = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t bytes = 0;
};

class MatchReader {
 public:
  // Layers [layer_begin, layer_end). INVALID_ARGUMENT names a field out of range, also when a row
  // of some plane is larger than a frame.
  static absl::StatusOr<std::unique_ptr<MatchReader>> Create(MatchLeasePtr lease,
                                                             int64_t layer_begin, int64_t layer_end,
                                                             int64_t max_frame_bytes,
                                                             MemorySpan arena);

  bool done() const { return layer_ == layer_end_; }

  // Enqueues the next frame into `staging` (host memory of at least max_frame_bytes). The bytes are
  // there once an event recorded after it is done. REQUIRES: !done().
  absl::StatusOr<ReadFrame> EnqueueNext(Backend* backend, Lane& lane, MemorySpan staging);

  // Payload bytes of all frames.
  int64_t total_bytes() const;

 private:
  MatchReader(MatchLeasePtr lease, MemorySpan arena) : tables_(std::move(lease), arena) {}
  const std::vector<RealignRow>& RowsFor(int64_t rows_per_frame);

  const MatchTables tables_;
  int layer_begin_ = 0;
  int layer_end_ = 0;
  int64_t max_frame_bytes_ = 0;

  // The match's rows with slot = row number % rows of a frame, by rows of a frame.
  std::map<int64_t, std::vector<RealignRow>> rows_by_frame_;

  int layer_ = 0;
  int plane_ = 0;
  int64_t row_ = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_READER_H_
