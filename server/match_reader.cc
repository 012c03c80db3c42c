#include "server/match_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/angles.h"
#include "kernels/base/status_macros.h"

namespace semshare {

absl::StatusOr<std::unique_ptr<MatchReader>> MatchReader::Create(MatchLeasePtr lease,
                                                                 int64_t layer_begin,
                                                                 int64_t layer_end,
                                                                 int64_t max_frame_bytes,
                                                                 MemorySpan arena) {
  const KvLayout& layout = lease->model->layout();
  if (layer_end == 0) layer_end = layout.layers();
  if (layer_begin < 0 || layer_begin >= layer_end || layer_end > layout.layers()) {
    return absl::InvalidArgumentError(absl::StrCat("layer_begin, layer_end: [", layer_begin, ", ",
                                                   layer_end, ") is not within 0..",
                                                   layout.layers()));
  }
  for (int64_t l = layer_begin; l < layer_end; ++l) {
    for (const PlaneLayout& plane : layout.planes(static_cast<int>(l))) {
      if (plane.row_bytes <= max_frame_bytes) continue;
      return absl::InvalidArgumentError(absl::StrCat("max_frame_payload_bytes: a row of plane ",
                                                     plane.name, " has ", plane.row_bytes,
                                                     " bytes"));
    }
  }
  auto reader = std::unique_ptr<MatchReader>(new MatchReader());
  reader->lease_ = std::move(lease);
  reader->arena_ = arena;
  reader->layer_begin_ = static_cast<int>(layer_begin);
  reader->layer_end_ = static_cast<int>(layer_end);
  reader->layer_ = reader->layer_begin_;
  reader->max_frame_bytes_ = max_frame_bytes;
  reader->BuildTables();
  return reader;
}

void MatchReader::BuildTables() {
  std::vector<PositionPair> pairs;
  rows_.reserve(lease_->matched_tokens);
  for (const Segment& segment : lease_->segments) {
    const std::vector<int64_t>& offsets = lease_->chunk_offsets[segment.reference];
    const bool moved = segment.source_begin != segment.target_begin;
    for (int64_t i = 0; i < segment.tokens; ++i) {
      const int64_t source = segment.source_begin + i;
      RealignRow row;
      row.chunk_offset = offsets[source / kChunkTokens];
      row.chunk_token = static_cast<int32_t>(source % kChunkTokens);
      row.slot = static_cast<int64_t>(rows_.size());
      if (moved) {
        row.angle_row = static_cast<int32_t>(pairs.size());
        pairs.push_back({source, segment.target_begin + i});
      }
      rows_.push_back(row);
    }
  }
  angle_rows_ = static_cast<int64_t>(pairs.size());
  for (const RotaryDescriptor& rotary : lease_->model->layout().rotaries()) {
    angles_.push_back(BuildAngleTable(rotary, pairs));
  }
}

const std::vector<RealignRow>& MatchReader::RowsFor(int64_t rows_per_frame) {
  auto [it, fresh] = rows_by_frame_.try_emplace(rows_per_frame);
  if (fresh) {
    it->second = rows_;
    for (RealignRow& row : it->second) row.slot %= rows_per_frame;
  }
  return it->second;
}

absl::StatusOr<ReadFrame> MatchReader::EnqueueNext(Backend* backend, Lane& lane,
                                                   MemorySpan staging) {
  const KvLayout& layout = lease_->model->layout();
  const PlaneLayout& plane = layout.planes(layer_)[plane_];
  const int64_t rows_per_frame = max_frame_bytes_ / plane.row_bytes;
  const std::vector<RealignRow>& rows = RowsFor(rows_per_frame);
  ReadFrame frame{layer_, plane_, row_,
                  std::min(rows_per_frame, static_cast<int64_t>(rows.size()) - row_), 0};
  frame.bytes = frame.rows * plane.row_bytes;

  RealignArgs args;
  args.dtype = layout.dtype();
  args.heads = plane.heads;
  args.width = plane.width;
  args.source = arena_;
  args.slab_offset = plane.slab_offset;
  args.rows = HostSpan(rows.data() + row_, frame.rows);
  args.row_count = frame.rows;
  if (plane.rotary >= 0) {
    const RotaryDescriptor& rotary = layout.rotaries()[plane.rotary];
    args.rotary_begin = rotary.begin;
    args.rotary_width = rotary.width;
    args.pairing = rotary.pairing;
    args.angles =
        HostSpan(angles_[plane.rotary].data(), static_cast<int64_t>(angles_[plane.rotary].size()));
    args.angle_rows = angle_rows_;
  }
  args.destination =
      ContiguousView(staging.Sub(0, frame.bytes), plane.heads, plane.width, layout.dtype());
  SEMSHARE_RETURN_IF_ERROR(backend->EnqueueRealign(lane, args));

  row_ += frame.rows;
  if (row_ == static_cast<int64_t>(rows.size())) {
    row_ = 0;
    if (++plane_ == static_cast<int>(layout.planes(layer_).size())) {
      plane_ = 0;
      ++layer_;
    }
  }
  return frame;
}

int64_t MatchReader::total_bytes() const {
  const KvLayout& layout = lease_->model->layout();
  int64_t bytes = 0;
  for (int l = layer_begin_; l < layer_end_; ++l) {
    for (const PlaneLayout& plane : layout.planes(l)) {
      bytes += static_cast<int64_t>(rows_.size()) * plane.row_bytes;
    }
  }
  return bytes;
}

}  // namespace semshare
