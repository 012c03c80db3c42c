#include "client/cpp/answer_checks.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace semshare::client {
namespace {

constexpr size_t kIdBytes = 16;

template <typename... Parts>
absl::Status Wrong(const Parts&... parts) {
  return absl::InternalError(absl::StrCat("the broker broke the contract: ", parts...));
}

template <typename Ranges>
absl::Status CheckRanges(const char* what, const Ranges& ranges, uint32_t tokens) {
  uint32_t end = 0;
  for (const v1::TokenRange& range : ranges) {
    if (range.begin() < end || range.begin() >= range.end() || range.end() > tokens) {
      return Wrong(what, ": range [", range.begin(), ", ", range.end(), ") after ", end, " of ",
                   tokens, " tokens");
    }
    end = range.end();
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckMatch(const v1::Match& match, uint32_t target_tokens) {
  if (match.lease_id().size() != kIdBytes) {
    return Wrong("lease_id of ", match.lease_id().size(), " bytes");
  }
  uint64_t end = 0;
  uint64_t matched = 0;
  for (const v1::Segment& segment : match.segments()) {
    if (segment.target_begin() < end || segment.tokens() == 0 ||
        uint64_t{segment.target_begin()} + segment.tokens() > target_tokens) {
      return Wrong("segment of ", segment.tokens(), " tokens at ", segment.target_begin(),
                   " after ", end, " of ", target_tokens);
    }
    if (segment.reference() >= static_cast<uint32_t>(match.references_size())) {
      return Wrong("segment of reference ", segment.reference(), " of ", match.references_size());
    }
    if (uint64_t{segment.source_begin()} + segment.tokens() >
        match.references(static_cast<int>(segment.reference())).tokens()) {
      return Wrong("segment beyond its reference's end");
    }
    end = uint64_t{segment.target_begin()} + segment.tokens();
    matched += segment.tokens();
  }
  if (matched == 0 || matched != match.matched_tokens()) {
    return Wrong("matched_tokens ", match.matched_tokens(), ", segments hold ", matched);
  }
  absl::Status status = CheckRanges("plan.mandatory", match.plan().mandatory(), target_tokens);
  if (!status.ok()) return status;
  return CheckRanges("plan.selected", match.plan().selected(), target_tokens);
}

absl::Status CheckMissing(const v1::BeginPutResponse& answer, uint32_t tokens) {
  if (answer.reference_id().size() != kIdBytes) {
    return Wrong("reference_id of ", answer.reference_id().size(), " bytes");
  }
  if (answer.upload_id().size() != kIdBytes && !answer.upload_id().empty()) {
    return Wrong("upload_id of ", answer.upload_id().size(), " bytes");
  }
  if (answer.upload_id().empty() && !answer.missing().empty()) {
    return Wrong("missing ranges without an upload_id");
  }
  return CheckRanges("missing", answer.missing(), tokens);
}

FrameOrder::FrameOrder(ReadExpectation expected) : expected_(std::move(expected)) {
  if (expected_.layer_end == 0 && expected_.shape.has_value()) {
    expected_.layer_end = static_cast<uint32_t>(expected_.shape->row_bytes.size());
  }
}

bool FrameOrder::PlaneExists(uint32_t layer, uint32_t plane) const {
  if (expected_.layer_end != 0 && layer >= expected_.layer_end) return false;
  if (!expected_.shape.has_value()) return true;
  const auto& row_bytes = expected_.shape->row_bytes;
  return layer < row_bytes.size() && plane < row_bytes[layer].size();
}

absl::Status FrameOrder::CheckNewPlane(const RowRange& range) const {
  if (started_ && next_row_ != expected_.rows) {
    return Wrong("layer ", layer_, ", plane ", plane_, " ends at row ", next_row_, " of ",
                 expected_.rows);
  }
  const bool first = !started_ && range.layer == expected_.layer_begin && range.plane == 0;
  const bool next_plane = started_ && range.layer == layer_ && range.plane == plane_ + 1;
  // Without a shape nobody knows how many planes a layer has.
  const bool layer_may_end = !expected_.shape.has_value() || !PlaneExists(layer_, plane_ + 1);
  const bool next_layer =
      started_ && range.layer == layer_ + 1 && range.plane == 0 && layer_may_end;
  if (!first && !next_plane && !next_layer) {
    return Wrong("frames out of order: layer ", range.layer, ", plane ", range.plane,
                 started_ ? absl::StrCat(" after layer ", layer_, ", plane ", plane_)
                          : std::string(" at the start"));
  }
  if (!PlaneExists(range.layer, range.plane)) {
    return Wrong("layer ", range.layer, ", plane ", range.plane, " does not exist");
  }
  return absl::OkStatus();
}

absl::Status FrameOrder::CheckPayload(const KvFrame& frame) {
  const RowRange& range = frame.range;
  if (range.count == 0 || frame.payload_bytes == 0 || frame.payload_bytes % range.count != 0) {
    return Wrong("payload of ", frame.payload_bytes, " bytes for ", range.count, " rows");
  }
  if (frame.payload_bytes > kMaxFramePayloadBytes) {
    return Wrong("payload of ", frame.payload_bytes, " bytes, the limit is ",
                 kMaxFramePayloadBytes);
  }
  const int64_t row_bytes = frame.payload_bytes / range.count;
  const int64_t expected_bytes = expected_.shape.has_value()
                                     ? expected_.shape->row_bytes[range.layer][range.plane]
                                     : (range.begin == 0 ? row_bytes : row_bytes_);
  if (row_bytes != expected_bytes) {
    return Wrong("rows of ", row_bytes, " bytes, not ", expected_bytes);
  }
  row_bytes_ = row_bytes;
  return absl::OkStatus();
}

absl::Status FrameOrder::Check(const KvFrame& frame) {
  const RowRange& range = frame.range;
  const bool continues = started_ && range.layer == layer_ && range.plane == plane_;
  if (!continues) {
    absl::Status status = CheckNewPlane(range);
    if (!status.ok()) return status;
  }
  const uint32_t next_row = continues ? next_row_ : 0;
  if (range.begin != next_row || range.count > expected_.rows - next_row) {
    return Wrong("frames out of order: rows ", range.begin, " + ", range.count, ", expected ",
                 next_row, " of ", expected_.rows);
  }
  absl::Status status = CheckPayload(frame);
  if (!status.ok()) return status;
  started_ = true;
  layer_ = range.layer;
  plane_ = range.plane;
  next_row_ = range.begin + range.count;
  return absl::OkStatus();
}

absl::Status FrameOrder::CheckEnd() const {
  if (!started_) return Wrong("a stream without frames");
  const bool more_planes = expected_.shape.has_value() && PlaneExists(layer_, plane_ + 1);
  const bool more_layers = expected_.layer_end != 0 && layer_ + 1 < expected_.layer_end;
  if (next_row_ != expected_.rows || more_planes || more_layers) {
    return Wrong("the stream ends early, after layer ", layer_, ", plane ", plane_, ", row ",
                 next_row_, " of ", expected_.rows);
  }
  return absl::OkStatus();
}

}  // namespace semshare::client
