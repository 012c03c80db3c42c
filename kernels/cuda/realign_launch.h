// RealignLaunch: what one launch of the realign kernel is told, and how a batch is cut into
// launches.
//
// A launch covers up to kPlanes planes that share their rows, angles, shape and strides; some of
// them may be copied instead of rotated (the V beside every K). It is passed by value as the
// kernel's parameter, so it stays below 4 KiB.
//
// Host memory tables are staged piece by piece: a piece is a range of rows with the range of angle
// rows that they name, and fits the staging buffer whatever the whole batch takes.
//
// Thread-safe: values and pure functions. No CUDA here: tests run all of it on the CPU.
#ifndef SEMSHARE_KERNELS_CUDA_REALIGN_LAUNCH_H_
#define SEMSHARE_KERNELS_CUDA_REALIGN_LAUNCH_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/backend.h"

namespace semshare {

struct RealignPlane {
  const std::byte* source = nullptr;  // slab_offset is in it: rows are chunk_offset behind it
  const std::byte* scales = nullptr;  // the same with scale_offset
  std::byte* destination = nullptr;
  int64_t source_bytes = 0;  // that may be read behind `source`
  int64_t scale_bytes = 0;   // that may be read behind `scales`
  int64_t destination_bytes = 0;
  int32_t rotates = 0;  // 0: every row is copied
};

struct RealignLaunch {
  static constexpr int kPlanes = 64;

  const RealignRow* rows = nullptr;
  int64_t row_count = 0;
  const float* angles = nullptr;  // the rows [angle_begin, angle_end) of the table
  int32_t angle_begin = 0;
  int32_t angle_end = 0;
  int64_t block_tokens = 1;
  int64_t block_stride = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  int64_t element_stride = 0;
  int64_t slot_limit = 0;  // slots from here on would overflow an address
  int64_t extent_low = 0;  // of a destination row's bytes, from the row's offset
  int64_t extent_high = 0;
  int32_t heads = 0;
  int32_t width = 0;
  int32_t rotary_begin = 0;
  int32_t rotary_width = 0;
  RotaryPairing pairing = RotaryPairing::kHalfSplit;
  bool vectors = false;  // shape and strides allow 128-bit accesses (VectorsFit)
  int32_t plane_count = 0;
  RealignPlane planes[kPlanes];
};
static_assert(sizeof(RealignLaunch) <= 4096);

// Whether both can be planes of one launch.
bool ShareLaunch(const RealignArgs& a, const RealignArgs& b);

// How many of the batch's items, from the first on, go into one launch. REQUIRES: not empty.
size_t LaunchItems(absl::Span<const RealignArgs> batch);

// The launch of items that share one, all rows, tables where the arguments say. A copied plane
// beside rotated ones keeps their rotary range; the range of the first rotated one counts.
// REQUIRES: batch.size() <= kPlanes, ShareLaunch holds for all pairs, CheckRealign is OK for each.
RealignLaunch MakeLaunch(absl::Span<const RealignArgs> batch);

// Whether heads of this shape are made of 16-byte units at the destination (and whole units in the
// source): element strides, head strides and the borders of the rotary range. What it cannot see,
// the addresses of a row, the kernel looks at.
bool VectorsFit(const RealignLaunch& launch, Dtype dtype);

// Slots at or above this would overflow a term of their address, 2^60 bytes. At least 1.
int64_t SlotLimit(const PlaneView& view);

// Rows [begin, end) and the angle rows that those which are not skipped name (empty if none does).
struct RealignPiece {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int32_t angle_begin = 0;
  int32_t angle_end = 0;
};

// Bytes of a piece in staging: its rows, and its angle rows from an aligned address on.
int64_t PieceBytes(const RealignPiece& piece, int64_t angle_row_bytes);

// The longest piece from row_begin on whose bytes fit `capacity`; at least one row.
// angle_row_bytes 0: the angles are not staged. REQUIRES: row_begin < rows.size(); one row with one
// angle row fits.
RealignPiece NextPiece(absl::Span<const RealignRow> rows, int64_t row_begin,
                       int64_t angle_row_bytes, int64_t capacity);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_REALIGN_LAUNCH_H_
