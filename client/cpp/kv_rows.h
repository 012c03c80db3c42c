// Key and value rows on their way between an engine's memory and the broker: which rows (RowRange),
// how wide they are (KvShape), where they come from (RowSource) and where they go (RowSink).
//
// Thread-safe: pure functions and values without shared state; PieceReader is not thread-safe.
// Ownership: views and spans own nothing. What they point at must outlive the call they are given
// to; rows that are lent (LentRows) may be used for longer.
#ifndef SEMSHARE_CLIENT_CPP_KV_ROWS_H_
#define SEMSHARE_CLIENT_CPP_KV_ROWS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "semshare/v1/model.pb.h"

namespace semshare::client {

// Payload of a frame at most, as the contract says.
inline constexpr int64_t kMaxFramePayloadBytes = int64_t{2} << 20;

// Rows [begin, begin + count) of one plane of one layer: tokens of a reference when they are sent,
// rows of a match (numbered through its segments) when they are received.
struct RowRange {
  uint32_t layer = 0;
  uint32_t plane = 0;
  uint32_t begin = 0;
  uint32_t count = 0;
};

// Bytes of one row ([head][width]) of every plane of every layer.
struct KvShape {
  // [layer][plane], each > 0.
  std::vector<std::vector<int64_t>> row_bytes;

  // Bytes of one token over all layers and planes.
  int64_t BytesPerToken() const;
};

// The shape that a spec describes. INVALID_ARGUMENT if its layer groups do not name every layer
// exactly once, or if a plane or the element type is unusable.
absl::StatusOr<KvShape> ShapeOf(const v1::ModelSpec& spec);

// `layers` layers whose planes all have rows of `plane_row_bytes`.
KvShape UniformShape(uint32_t layers, const std::vector<int64_t>& plane_row_bytes);

// Pieces of memory read as one run of bytes. Not thread-safe.
class PieceReader {
 public:
  explicit PieceReader(absl::Span<const absl::Span<const char>> pieces);

  int64_t left() const { return left_bytes_; }

  // Copies the next bytes. REQUIRES: 0 <= bytes <= left().
  void Copy(char* to, int64_t bytes);

  // Steps over the next bytes. REQUIRES: 0 <= bytes <= left().
  void Skip(int64_t bytes);

  // The next bytes, still in pieces and not copied. REQUIRES: 0 <= bytes <= left().
  std::vector<absl::Span<const char>> Take(int64_t bytes);

 private:
  // What is left of the current piece, at most `bytes`; steps over it.
  absl::Span<const char> Next(int64_t bytes);

  absl::Span<const absl::Span<const char>> pieces_;
  size_t piece_ = 0;
  size_t offset_ = 0;
  int64_t left_bytes_ = 0;
};

// Rows in the caller's memory. gRPC sends from there: they must stay as they are until the last
// copy of `owner` is gone, which may be after the call that they were lent to.
struct LentRows {
  absl::Span<const char> bytes;
  std::shared_ptr<const void> owner;
};

// Where Client::Put gets rows. Called in the order of the frames, on the thread that called Put. A
// failure ends the upload and becomes Put's answer.
struct RowSource {
  // Writes the rows [token][head][width] of `range` into `rows`, which is exactly large enough.
  using Fill = std::function<absl::Status(const RowRange& range, absl::Span<char> rows)>;
  // The same rows, `bytes` bytes, where they lie side by side; without bytes: they do not, and
  // `fill` is asked for them. Saves a copy.
  using Lend = std::function<absl::StatusOr<LentRows>(const RowRange& range, int64_t bytes)>;

  template <typename Function>
  requires std::is_invocable_r_v<absl::Status, Function, const RowRange&, absl::Span<char>>
  // NOLINTNEXTLINE(google-explicit-constructor): a function is a source that lends nothing.
  RowSource(Function function) : fill(std::move(function)) {}
  RowSource(Fill filler, Lend lender) : fill(std::move(filler)), lend(std::move(lender)) {}

  Fill fill;
  Lend lend;  // may be null
};

// Takes the rows [row][head][width] of `range`, in pieces that lie in the received message: they
// are gone when the call returns. Called in (layer, plane, row) order, on the thread that called
// Client::Read. A failure ends the stream and becomes Read's answer.
using RowSink = std::function<absl::Status(const RowRange& range,
                                           absl::Span<const absl::Span<const char>> pieces)>;

// One plane of one layer in the caller's memory. Row r, head h lies at
// base + r * row_stride_bytes + h * head_stride_bytes, and is head_bytes long, so that
// [token][head][width] and [head][token][width] are both data, not code.
struct PlaneView {
  char* base = nullptr;
  int64_t rows = 0;
  int64_t row_stride_bytes = 0;
  int64_t head_stride_bytes = 0;
  int64_t heads = 0;
  int64_t head_bytes = 0;
};

// [layer][plane].
using RowViews = std::vector<std::vector<PlaneView>>;

// Sends rows out of, and receives rows into, the caller's own memory. A range outside of `views`,
// or bytes that do not fill its rows, become INVALID_ARGUMENT. `views` is kept in the function; the
// memory it points at must live until the transfer has ended. With an `owner` of that memory, rows
// that lie side by side are lent.
RowSource FromViews(RowViews views, std::shared_ptr<const void> owner = nullptr);
RowSink IntoViews(RowViews views);

}  // namespace semshare::client

#endif  // SEMSHARE_CLIENT_CPP_KV_ROWS_H_
