#include "server/match_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {

absl::StatusOr<std::unique_ptr<MatchReader>> MatchReader::Create(MatchLeasePtr lease,
                                                                 int64_t layer_begin,
                                                                 int64_t layer_end,
                                                                 int64_t max_frame_bytes,
                                                                 MemorySpan arena) {
  const KvLayout& layout = lease->model->layout();
  SEMSHARE_ASSIGN_OR_RETURN(const LayerRange layers, ResolveLayers(layout, layer_begin, layer_end));
  for (int l = layers.begin; l < layers.end; ++l) {
    for (const PlaneLayout& plane : layout.planes(l)) {
      if (plane.row_bytes <= max_frame_bytes) continue;
      return absl::InvalidArgumentError(absl::StrCat("max_frame_payload_bytes: a row of plane ",
                                                     plane.name, " has ", plane.row_bytes,
                                                     " bytes"));
    }
  }
  auto reader = std::unique_ptr<MatchReader>(new MatchReader(std::move(lease), arena));
  reader->layer_begin_ = layers.begin;
  reader->layer_end_ = layers.end;
  reader->layer_ = reader->layer_begin_;
  reader->max_frame_bytes_ = max_frame_bytes;
  return reader;
}

const std::vector<RealignRow>& MatchReader::RowsFor(int64_t rows_per_frame) {
  auto [it, fresh] = rows_by_frame_.try_emplace(rows_per_frame);
  if (fresh) {
    it->second = tables_.rows();
    for (RealignRow& row : it->second) row.slot %= rows_per_frame;
  }
  return it->second;
}

absl::StatusOr<ReadFrame> MatchReader::EnqueueNext(Backend* backend, Lane& lane,
                                                   MemorySpan staging) {
  const KvLayout& layout = tables_.layout();
  const PlaneLayout& plane = layout.planes(layer_)[plane_];
  const int64_t rows_per_frame = max_frame_bytes_ / plane.row_bytes;
  const std::vector<RealignRow>& rows = RowsFor(rows_per_frame);
  ReadFrame frame{layer_, plane_, row_,
                  std::min(rows_per_frame, static_cast<int64_t>(rows.size()) - row_), 0};
  frame.bytes = frame.rows * plane.row_bytes;

  RealignArgs args =
      tables_.Args(layer_, plane_, absl::MakeConstSpan(rows).subspan(row_, frame.rows));
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
  const KvLayout& layout = tables_.layout();
  int64_t bytes = 0;
  for (int l = layer_begin_; l < layer_end_; ++l) {
    for (const PlaneLayout& plane : layout.planes(l)) {
      bytes += static_cast<int64_t>(tables_.rows().size()) * plane.row_bytes;
    }
  }
  return bytes;
}

}  // namespace semshare
