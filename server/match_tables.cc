#include "server/match_tables.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/angles.h"

namespace semshare {

absl::StatusOr<LayerRange> ResolveLayers(const KvLayout& layout, int64_t begin, int64_t end) {
  if (end == 0) end = layout.layers();
  if (begin < 0 || begin >= end || end > layout.layers()) {
    return absl::InvalidArgumentError(absl::StrCat("layer_begin, layer_end: [", begin, ", ", end,
                                                   ") is not within 0..", layout.layers()));
  }
  return LayerRange{static_cast<int>(begin), static_cast<int>(end)};
}

MatchTables::MatchTables(MatchLeasePtr lease, MemorySpan arena)
    : lease_(std::move(lease)), arena_(arena) {
  std::vector<PositionPair> pairs;
  rows_.reserve(static_cast<size_t>(lease_->matched_tokens));
  targets_.reserve(static_cast<size_t>(lease_->matched_tokens));
  for (const Segment& segment : lease_->segments) {
    const std::vector<int64_t>& offsets = lease_->chunk_offsets[segment.reference];
    const bool moved = segment.source_begin != segment.target_begin;
    for (int64_t i = 0; i < segment.tokens; ++i) {
      const int64_t source = segment.source_begin + i;
      const int64_t target = segment.target_begin + i;
      RealignRow row;
      row.chunk_offset = offsets[source / kChunkTokens];
      row.chunk_token = static_cast<int32_t>(source % kChunkTokens);
      row.slot = static_cast<int64_t>(rows_.size());
      if (moved) {
        row.angle_row = static_cast<int32_t>(pairs.size());
        pairs.push_back({source, target});
      }
      rows_.push_back(row);
      targets_.push_back(target);
    }
  }
  angle_rows_ = static_cast<int64_t>(pairs.size());
  for (const RotaryDescriptor& rotary : layout().rotaries()) {
    angles_.push_back(BuildAngleTable(rotary, pairs));
  }
}

RealignArgs MatchTables::Args(int layer, int plane, absl::Span<const RealignRow> rows) const {
  const PlaneLayout& stored = layout().planes(layer)[plane];
  RealignArgs args;
  args.dtype = layout().dtype();
  args.heads = stored.heads;
  args.width = stored.width;
  args.source = arena_;
  args.slab_offset = stored.slab_offset;
  args.row_count = static_cast<int64_t>(rows.size());
  args.rows = HostSpan(rows.data(), args.row_count);
  if (stored.rotary >= 0) {
    const RotaryDescriptor& rotary = layout().rotaries()[stored.rotary];
    const std::vector<float>& angles = angles_[stored.rotary];
    args.rotary_begin = rotary.begin;
    args.rotary_width = rotary.width;
    args.pairing = rotary.pairing;
    args.angles = HostSpan(angles.data(), static_cast<int64_t>(angles.size()));
    args.angle_rows = angle_rows_;
  }
  return args;
}

}  // namespace semshare
