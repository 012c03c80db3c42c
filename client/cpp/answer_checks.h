// What the broker says is checked before anything is done with it: a broker that is wrong must cost
// its caller an error, never a wrong cache. Every failure is INTERNAL and says what was wrong.
//
// Thread-safe: pure functions; FrameOrder is not thread-safe and belongs to one stream.
#ifndef SEMSHARE_CLIENT_CPP_ANSWER_CHECKS_H_
#define SEMSHARE_CLIENT_CPP_ANSWER_CHECKS_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "client/cpp/frame_codec.h"
#include "client/cpp/kv_rows.h"
#include "semshare/v1/cache_broker.pb.h"

namespace semshare::client {

// Segments and plan lie inside the target, ascending and disjoint, and the counts agree.
absl::Status CheckMatch(const v1::Match& match, uint32_t target_tokens);

// Missing ranges lie inside the reference, ascending and disjoint; they have an upload to go to.
absl::Status CheckMissing(const v1::BeginPutResponse& answer, uint32_t tokens);

// What a ReadKv stream must bring.
struct ReadExpectation {
  uint32_t layer_begin = 0;
  // 0: not known; the stream's own end is believed.
  uint32_t layer_end = 0;
  // Rows of every plane, > 0.
  uint32_t rows = 0;
  // Where the caller knows it, row sizes and the number of planes are checked too.
  std::optional<KvShape> shape;
};

// Follows a ReadKv stream. Not thread-safe.
class FrameOrder {
 public:
  explicit FrameOrder(ReadExpectation expected);

  // The next frame continues the one before, fits its plane and carries whole rows.
  absl::Status Check(const KvFrame& frame);

  // Nothing is missing at the stream's end.
  absl::Status CheckEnd() const;

 private:
  absl::Status CheckPayload(const KvFrame& frame);
  // The plane before is complete and `range` starts the one that follows it.
  absl::Status CheckNewPlane(const RowRange& range) const;
  bool PlaneExists(uint32_t layer, uint32_t plane) const;

  // Constant after construction.
  ReadExpectation expected_;

  bool started_ = false;
  uint32_t layer_ = 0;
  uint32_t plane_ = 0;
  uint32_t next_row_ = 0;
  int64_t row_bytes_ = 0;
};

}  // namespace semshare::client

#endif  // SEMSHARE_CLIENT_CPP_ANSWER_CHECKS_H_
