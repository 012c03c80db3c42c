#include "server/match_tables.h"

#include "absl/strings/str_cat.h"

namespace semshare {

absl::StatusOr<LayerRange> ResolveLayers(const KvLayout& layout, int64_t begin, int64_t end) {
  if (end == 0) end = layout.layers();
  if (begin < 0 || begin >= end || end > layout.layers()) {
    return absl::InvalidArgumentError(absl::StrCat("layer_begin, layer_end: [", begin, ", ", end,
                                                   ") is not within 0..", layout.layers()));
  }
  return LayerRange{static_cast<int>(begin), static_cast<int>(end)};
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
    const std::vector<float>& angles = rows_->angles[stored.rotary];
    args.rotary_begin = rotary.begin;
    args.rotary_width = rotary.width;
    args.pairing = rotary.pairing;
    args.angles = HostSpan(angles.data(), static_cast<int64_t>(angles.size()));
    args.angle_rows = rows_->angle_rows;
  }
  return args;
}

}  // namespace semshare
