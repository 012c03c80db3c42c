#include "server/region_reader.h"

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {

absl::StatusOr<std::unique_ptr<RegionReader>> RegionReader::Create(MatchLeasePtr lease,
                                                                   int64_t layer_begin,
                                                                   int64_t layer_end,
                                                                   MemorySpan arena, KvView view) {
  const int64_t prompt_tokens = lease->target_tokens;
  SEMSHARE_ASSIGN_OR_RETURN(const LayerRange layers,
                            ResolveLayers(lease->model->layout(), layer_begin, layer_end));
  auto reader = std::unique_ptr<RegionReader>(new RegionReader(std::move(lease), arena));
  const MatchTables& tables = reader->tables_;
  SEMSHARE_ASSIGN_OR_RETURN(
      reader->view_, ResolveKvView("target", std::move(view), tables.layout(), layers.begin,
                                   layers.end, prompt_tokens, tables.targets(), /*may_skip=*/true));
  reader->rows_ = tables.rows();
  for (size_t i = 0; i < reader->rows_.size(); ++i) {
    RealignRow& row = reader->rows_[i];
    row.slot = reader->view_.SlotOf(tables.targets()[i]);
    if (row.slot >= 0) ++reader->rows_written_;
  }
  reader->layer_ = layers.begin;
  reader->layer_end_ = layers.end;
  return reader;
}

absl::StatusOr<int> RegionReader::EnqueueLayer(Backend* backend, Lane& lane) {
  const int planes = static_cast<int>(tables_.layout().planes(layer_).size());
  std::vector<RealignArgs> batch;
  for (int plane = 0; plane < planes; ++plane) {
    batch.push_back(tables_.Args(layer_, plane, rows_));
    batch.back().destination = view_.planes[plane_++];
    batch.back().streaming = true;
  }
  SEMSHARE_RETURN_IF_ERROR(backend->EnqueueRealign(lane, batch));
  return layer_++;
}

int64_t RegionReader::layer_bytes(int layer) const {
  int64_t bytes = 0;
  for (const PlaneLayout& plane : tables_.layout().planes(layer)) {
    bytes += rows_written_ * plane.row_bytes;
  }
  return bytes;
}

}  // namespace semshare
