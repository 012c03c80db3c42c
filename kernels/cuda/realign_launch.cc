#include "kernels/cuda/realign_launch.h"

#include <algorithm>
#include <limits>

#include "kernels/base/status_macros.h"
#include "kernels/cuda/staging_plan.h"

namespace semshare {
namespace {

// As in CheckRealign: no memory is that big.
constexpr int64_t kMaxTerm = int64_t{1} << 60;

bool SameSpan(const MemorySpan& a, const MemorySpan& b) {
  return a.address == b.address && a.bytes == b.bytes && a.kind == b.kind;
}

bool SameStrides(const PlaneView& a, const PlaneView& b) {
  return a.block_tokens == b.block_tokens && a.block_stride == b.block_stride &&
         a.token_stride == b.token_stride && a.head_stride == b.head_stride &&
         a.element_stride == b.element_stride;
}

bool SameRotation(const RealignArgs& a, const RealignArgs& b) {
  return a.rotary_begin == b.rotary_begin && a.rotary_width == b.rotary_width &&
         a.pairing == b.pairing && a.angle_rows == b.angle_rows && SameSpan(a.angles, b.angles);
}

// How many steps of `stride` bytes stay within kMaxTerm.
int64_t StepsWithin(int64_t stride) {
  if (stride == 0) return std::numeric_limits<int64_t>::max();
  if (stride == std::numeric_limits<int64_t>::min()) return 0;
  return kMaxTerm / (stride < 0 ? -stride : stride);
}

RealignPlane MakePlane(const RealignArgs& args) {
  RealignPlane plane;
  const auto* source = reinterpret_cast<const std::byte*>(args.source.address);
  plane.source = source + args.slab_offset;
  plane.source_bytes = args.source.bytes - args.slab_offset;
  plane.scales = source + args.scale_offset;
  plane.scale_bytes = args.source.bytes - args.scale_offset;
  plane.destination = reinterpret_cast<std::byte*>(args.destination.memory.address);
  plane.destination_bytes = args.destination.memory.bytes;
  plane.rotates = args.rotary_width > 0 ? 1 : 0;
  return plane;
}

}  // namespace

bool ShareLaunch(const RealignArgs& a, const RealignArgs& b) {
  const bool same_shape = a.dtype == b.dtype && a.codec == b.codec && a.heads == b.heads &&
                          a.width == b.width && SameStrides(a.destination, b.destination);
  const bool same_rows = a.row_count == b.row_count && SameSpan(a.rows, b.rows);
  return same_shape && same_rows &&
         (a.rotary_width == 0 || b.rotary_width == 0 || SameRotation(a, b));
}

size_t LaunchItems(absl::Span<const RealignArgs> batch) {
  const RealignArgs* rotated = nullptr;
  size_t items = 0;
  for (; items < batch.size() && items < RealignLaunch::kPlanes; ++items) {
    const RealignArgs& args = batch[items];
    if (!ShareLaunch(batch[0], args)) break;
    if (args.rotary_width == 0) continue;
    // The first may be a copied one, which shares with everything.
    if (rotated != nullptr && !ShareLaunch(*rotated, args)) break;
    rotated = &args;
  }
  return items;
}

int64_t SlotLimit(const PlaneView& view) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  // slot / block_tokens blocks, and slot % block_tokens tokens, each within kMaxTerm.
  const int64_t blocks = StepsWithin(view.block_stride);
  int64_t limit = blocks >= kMax / view.block_tokens ? kMax : (blocks + 1) * view.block_tokens;
  const int64_t tokens = StepsWithin(view.token_stride);
  if (tokens < view.block_tokens - 1) limit = std::min(limit, tokens + 1);
  return limit;
}

bool VectorsFit(const RealignLaunch& launch, Dtype dtype) {
  const int64_t element = DtypeBytes(dtype);
  const int32_t unit = static_cast<int32_t>(16 / element);  // elements
  const bool heads_fit = launch.heads == 1 || launch.head_stride % 16 == 0;
  // In the source heads begin at multiples of a unit, 16 bytes or, under a codec, one byte an
  // element, because the width is a multiple of it.
  if (launch.element_stride != element || !heads_fit || launch.width % unit != 0) return false;
  if (launch.rotary_width == 0) return true;
  const bool halves_fit =
      launch.pairing == RotaryPairing::kInterleaved || (launch.rotary_width / 2) % unit == 0;
  return launch.rotary_begin % unit == 0 && launch.rotary_width % unit == 0 && halves_fit;
}

RealignLaunch MakeLaunch(absl::Span<const RealignArgs> batch) {
  SEMSHARE_CHECK(!batch.empty() && batch.size() <= RealignLaunch::kPlanes);
  RealignLaunch launch;
  const RealignArgs* shape = &batch[0];
  for (const RealignArgs& args : batch) {
    if (shape->rotary_width == 0) shape = &args;
    launch.planes[launch.plane_count++] = MakePlane(args);
  }
  launch.rows = reinterpret_cast<const RealignRow*>(shape->rows.address);
  launch.row_count = shape->row_count;
  launch.angles = reinterpret_cast<const float*>(shape->angles.address);
  launch.angle_end = static_cast<int32_t>(shape->rotary_width == 0 ? 0 : shape->angle_rows);
  const PlaneView& view = shape->destination;
  launch.block_tokens = view.block_tokens;
  launch.block_stride = view.block_stride;
  launch.token_stride = view.token_stride;
  launch.head_stride = view.head_stride;
  launch.element_stride = view.element_stride;
  launch.slot_limit = SlotLimit(view);
  const int64_t head_extent = (shape->heads - 1) * view.head_stride;
  const int64_t element_extent = (shape->width - 1) * view.element_stride;
  launch.extent_low = std::min<int64_t>(0, head_extent) + std::min<int64_t>(0, element_extent);
  launch.extent_high = std::max<int64_t>(0, head_extent) + std::max<int64_t>(0, element_extent) +
                       DtypeBytes(shape->dtype);
  launch.heads = shape->heads;
  launch.width = shape->width;
  launch.rotary_begin = shape->rotary_begin;
  launch.rotary_width = shape->rotary_width;
  launch.pairing = shape->pairing;
  launch.vectors = VectorsFit(launch, shape->dtype);
  return launch;
}

int64_t PieceBytes(const RealignPiece& piece, int64_t angle_row_bytes) {
  const int64_t rows = (piece.row_end - piece.row_begin) * static_cast<int64_t>(sizeof(RealignRow));
  return StagingPlan::AlignUp(rows) + (piece.angle_end - piece.angle_begin) * angle_row_bytes;
}

RealignPiece NextPiece(absl::Span<const RealignRow> rows, int64_t row_begin,
                       int64_t angle_row_bytes, int64_t capacity) {
  RealignPiece piece{row_begin, row_begin, 0, 0};
  for (int64_t i = row_begin; i < static_cast<int64_t>(rows.size()); ++i) {
    const RealignRow& row = rows[static_cast<size_t>(i)];
    RealignPiece longer = piece;
    longer.row_end = i + 1;
    if (row.slot >= 0 && row.angle_row >= 0) {
      const bool first = piece.angle_begin == piece.angle_end;
      longer.angle_begin = first ? row.angle_row : std::min(piece.angle_begin, row.angle_row);
      longer.angle_end = first ? row.angle_row + 1 : std::max(piece.angle_end, row.angle_row + 1);
    }
    if (i > row_begin && PieceBytes(longer, angle_row_bytes) > capacity) break;
    piece = longer;
  }
  return piece;
}

}  // namespace semshare
