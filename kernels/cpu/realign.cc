#include "kernels/cpu/realign.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/cpu/operations.h"
#include "kernels/cpu/realign_strided.h"

// This file is compiled once per instruction set; the best one is chosen once per operation.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/realign.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// The formats need the header above, once per instruction set.
#include "kernels/cpu/realign_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace semshare {
namespace HWY_NAMESPACE {

// One vector of pairs from pair j on.
template <class Format, RotaryPairing kPairing, class D>
HWY_INLINE void RotatePairs(D d, const typename Format::Stored* HWY_RESTRICT source,
                            typename Format::Stored* HWY_RESTRICT destination,
                            const float* HWY_RESTRICT angles, size_t half, size_t j) {
  const auto cosine = hn::LoadU(d, angles + j);
  const auto sine = hn::LoadU(d, angles + half + j);
  hn::Vec<D> x, y;
  if constexpr (kPairing == RotaryPairing::kHalfSplit) {
    x = Format::Load(d, source + j);
    y = Format::Load(d, source + half + j);
  } else {
    Format::LoadPairs(d, source + 2 * j, x, y);
  }
  const auto rotated_x = hn::NegMulAdd(y, sine, hn::Mul(x, cosine));
  const auto rotated_y = hn::MulAdd(y, cosine, hn::Mul(x, sine));
  if constexpr (kPairing == RotaryPairing::kHalfSplit) {
    Format::Store(d, rotated_x, destination + j);
    Format::Store(d, rotated_y, destination + half + j);
  } else {
    Format::StorePairs(d, rotated_x, rotated_y, destination + 2 * j);
  }
}

// The rotary range of one head. REQUIRES: half >= Lanes(d).
template <class Format, RotaryPairing kPairing, class D>
HWY_INLINE void RotateHead(D d, const typename Format::Stored* HWY_RESTRICT source,
                           typename Format::Stored* HWY_RESTRICT destination,
                           const float* HWY_RESTRICT angles, size_t half) {
  const size_t lanes = hn::Lanes(d);
  size_t j = 0;
  for (; j + lanes <= half; j += lanes) {
    RotatePairs<Format, kPairing>(d, source, destination, angles, half, j);
  }
  // The last vector overlaps the one before it and writes the same values again: source and
  // destination are different memory.
  if (j < half) RotatePairs<Format, kPairing>(d, source, destination, angles, half, half - lanes);
}

// What does not change from row to row.
struct RowShape {
  explicit RowShape(const RealignArgs& args)
      : heads(static_cast<size_t>(args.heads)),
        head_bytes(static_cast<size_t>(args.width * DtypeBytes(args.dtype))),
        row_bytes(heads * head_bytes),
        before_bytes(static_cast<size_t>(args.rotary_begin * DtypeBytes(args.dtype))),
        rotary_bytes(static_cast<size_t>(args.rotary_width * DtypeBytes(args.dtype))),
        after_bytes(head_bytes - before_bytes - rotary_bytes),
        head_stride(args.destination.head_stride),
        contiguous(args.heads == 1 || head_stride == static_cast<int64_t>(head_bytes)) {}

  size_t heads, head_bytes, row_bytes;
  size_t before_bytes, rotary_bytes, after_bytes;  // of a head
  int64_t head_stride;
  bool contiguous;  // the heads of a destination row are adjacent
};

template <class Format, RotaryPairing kPairing, class D>
HWY_INLINE void RotateRow(D d, const RowShape& shape, const std::byte* HWY_RESTRICT source,
                          std::byte* HWY_RESTRICT destination, const float* HWY_RESTRICT angles,
                          size_t half) {
  using Stored = typename Format::Stored;
  for (size_t head = 0; head < shape.heads; ++head) {
    if (shape.before_bytes > 0) std::memcpy(destination, source, shape.before_bytes);
    RotateHead<Format, kPairing>(d, reinterpret_cast<const Stored*>(source + shape.before_bytes),
                                 reinterpret_cast<Stored*>(destination + shape.before_bytes),
                                 angles, half);
    if (shape.after_bytes > 0) {
      const size_t end = shape.before_bytes + shape.rotary_bytes;
      std::memcpy(destination + end, source + end, shape.after_bytes);
    }
    source += shape.head_bytes;
    destination += shape.head_stride;
  }
}

// Where row i comes from and goes to.
struct RowPlace {
  const std::byte* source;
  std::byte* destination;
};

HWY_INLINE RowPlace PlaceOf(const RealignArgs& args, const RowShape& shape, const RealignRow& row) {
  return {args.source.host() + args.slab_offset + row.chunk_offset +
              row.chunk_token * static_cast<int64_t>(shape.row_bytes),
          args.destination.memory.host() + args.destination.Offset(row.slot, 0, 0)};
}

HWY_INLINE bool IsCopied(const RealignArgs& args, const RealignRow& row) {
  return row.slot >= 0 && (row.angle_row < 0 || args.rotary_width == 0);
}

// Copies row i and the copied rows after it that continue it on both sides, as one block; returns
// the first row that it did not copy.
HWY_INLINE int64_t CopyRun(const RealignArgs& args, const RowShape& shape, int64_t i, int64_t end) {
  const RealignRow* rows = ArrayOf<const RealignRow>(args.rows);
  const RowPlace first = PlaceOf(args, shape, rows[i]);
  if (!shape.contiguous) {
    for (size_t head = 0; head < shape.heads; ++head) {
      std::memcpy(first.destination + static_cast<int64_t>(head) * shape.head_stride,
                  first.source + head * shape.head_bytes, shape.head_bytes);
    }
    return i + 1;
  }
  size_t bytes = shape.row_bytes;
  for (++i; i < end && IsCopied(args, rows[i]); ++i) {
    const RowPlace next = PlaceOf(args, shape, rows[i]);
    if (next.source != first.source + bytes || next.destination != first.destination + bytes) break;
    bytes += shape.row_bytes;
  }
  std::memcpy(first.destination, first.source, bytes);
  return i;
}

template <class Format, RotaryPairing kPairing, class D>
void RealignRows(D d, const RealignArgs& args, int64_t begin, int64_t end) {
  const RowShape shape(args);
  const RealignRow* rows = ArrayOf<const RealignRow>(args.rows);
  const float* angles = ArrayOf<const float>(args.angles);
  const size_t half = static_cast<size_t>(args.rotary_width / 2);
  for (int64_t i = begin; i < end;) {
    const RealignRow& row = rows[i];
    if (row.slot < 0) {
      ++i;
    } else if (IsCopied(args, row)) {
      i = CopyRun(args, shape, i, end);
    } else {
      const RowPlace place = PlaceOf(args, shape, row);
      RotateRow<Format, kPairing>(d, shape, place.source, place.destination,
                                  angles + int64_t{row.angle_row} * args.rotary_width, half);
      ++i;
    }
  }
}

// Narrow rotary ranges take narrower vectors: RotateHead needs a full one.
template <class Format, RotaryPairing kPairing>
void RealignLanes(const RealignArgs& args, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> full;
  const hn::CappedTag<float, 4> four;
  const hn::CappedTag<float, 1> one;
  const size_t half = static_cast<size_t>(args.rotary_width / 2);
  if (half >= hn::Lanes(full)) return RealignRows<Format, kPairing>(full, args, begin, end);
  if (half >= hn::Lanes(four)) return RealignRows<Format, kPairing>(four, args, begin, end);
  RealignRows<Format, kPairing>(one, args, begin, end);
}

template <class Format>
void RealignFormat(const RealignArgs& args, int64_t begin, int64_t end) {
  if (args.pairing == RotaryPairing::kHalfSplit) {
    return RealignLanes<Format, RotaryPairing::kHalfSplit>(args, begin, end);
  }
  RealignLanes<Format, RotaryPairing::kInterleaved>(args, begin, end);
}

// Rows [begin, end). REQUIRES: the elements of a destination row are adjacent.
void RealignAdjacent(const RealignArgs& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case Dtype::kFloat32:
      return RealignFormat<Float32Format>(args, begin, end);
    case Dtype::kFloat16:
      return RealignFormat<Float16Format>(args, begin, end);
    case Dtype::kBfloat16:
      return RealignFormat<Bfloat16Format>(args, begin, end);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace semshare
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace semshare {
namespace {

HWY_EXPORT(RealignAdjacent);

// Below this a second thread costs more than it moves.
constexpr int64_t kPieceBytes = int64_t{256} << 10;

}  // namespace

void Realign(const RealignArgs& args, WorkerPool& pool) {
  const int64_t bytes = DtypeBytes(args.dtype);
  const int64_t grain = std::max<int64_t>(1, kPieceBytes / (args.heads * args.width * bytes));
  const bool adjacent = args.codec == Codec::kRaw && args.destination.element_stride == bytes;
  pool.ParallelFor(args.row_count, grain, [&](int64_t begin, int64_t end) {
    if (!adjacent) return RealignStrided(args, begin, end);
    HWY_DYNAMIC_DISPATCH(RealignAdjacent)(args, begin, end);
  });
}

}  // namespace semshare
#endif  // HWY_ONCE
