#include "kernels/cpu/realign.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/cpu/operations.h"
#include "kernels/cpu/realign_strided.h"

// This file is compiled once per instruction set; the best one is chosen once per operation.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/realign.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// These need the header above, once per instruction set.
#include "kernels/cpu/realign_formats-inl.h"
#include "kernels/cpu/realign_rotors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace semshare {
namespace HWY_NAMESPACE {

// Rows with more angles take the plain rotors.
constexpr size_t kMaxPreparedFloats = 1024;

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

// kStream: past the caches where the destination is aligned. A plain store reads the line first.
template <bool kStream>
HWY_INLINE void CopyBytes(const std::byte* HWY_RESTRICT from, std::byte* HWY_RESTRICT to,
                          size_t bytes) {
  size_t i = 0;
  if constexpr (kStream) {
    const hn::ScalableTag<uint8_t> d;
    const size_t lanes = hn::Lanes(d);
    const uint8_t* const source = reinterpret_cast<const uint8_t*>(from);
    uint8_t* const destination = reinterpret_cast<uint8_t*>(to);
    i = std::min(bytes, (0 - reinterpret_cast<uintptr_t>(to)) % lanes);
    if (i > 0) std::memcpy(to, from, i);
    for (; i + lanes <= bytes; i += lanes) {
      hn::Stream(hn::LoadU(d, source + i), d, destination + i);
    }
  }
  if (i < bytes) std::memcpy(to + i, from + i, bytes - i);
}

// Source bytes are asked for so far ahead of those being turned, into the second-level cache: the
// stores take the few buffers in which the first level waits for memory, so that it asks too late.
constexpr size_t kAheadBytes = 4096;
constexpr size_t kLineBytes = 64;

HWY_INLINE void AskAhead(const std::byte* source, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kLineBytes) {
    __builtin_prefetch(source + kAheadBytes + at, 0, 2);
  }
}

template <class Rotor, bool kStream, class D>
HWY_INLINE void RotateRow(D d, const RowShape& shape, const std::byte* HWY_RESTRICT source,
                          std::byte* HWY_RESTRICT destination, const float* HWY_RESTRICT angles,
                          size_t half) {
  using Stored = typename Rotor::Stored;
  HWY_ALIGN float scratch[kMaxPreparedFloats];
  const float* const prepared = Rotor::Prepare(d, angles, half, scratch);
  const size_t end = shape.before_bytes + shape.rotary_bytes;
  for (size_t head = 0; head < shape.heads; ++head) {
    AskAhead(source, shape.head_bytes);
    if (shape.before_bytes > 0) CopyBytes<kStream>(source, destination, shape.before_bytes);
    Rotor::template Head<kStream>(d, reinterpret_cast<const Stored*>(source + shape.before_bytes),
                                  reinterpret_cast<Stored*>(destination + shape.before_bytes),
                                  prepared, half);
    if (shape.after_bytes > 0) {
      CopyBytes<kStream>(source + end, destination + end, shape.after_bytes);
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
template <bool kStream>
HWY_INLINE int64_t CopyRun(const RealignArgs& args, const RowShape& shape, int64_t i, int64_t end) {
  const RealignRow* rows = ArrayOf<const RealignRow>(args.rows);
  const RowPlace first = PlaceOf(args, shape, rows[i]);
  if (!shape.contiguous) {
    for (size_t head = 0; head < shape.heads; ++head) {
      CopyBytes<kStream>(first.source + head * shape.head_bytes,
                         first.destination + static_cast<int64_t>(head) * shape.head_stride,
                         shape.head_bytes);
    }
    return i + 1;
  }
  size_t bytes = shape.row_bytes;
  for (++i; i < end && IsCopied(args, rows[i]); ++i) {
    const RowPlace next = PlaceOf(args, shape, rows[i]);
    if (next.source != first.source + bytes || next.destination != first.destination + bytes) break;
    bytes += shape.row_bytes;
  }
  CopyBytes<kStream>(first.source, first.destination, bytes);
  return i;
}

template <class Rotor, bool kStream, class D>
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
      i = CopyRun<kStream>(args, shape, i, end);
    } else {
      const RowPlace place = PlaceOf(args, shape, row);
      RotateRow<Rotor, kStream>(d, shape, place.source, place.destination,
                                angles + int64_t{row.angle_row} * args.rotary_width, half);
      ++i;
    }
  }
  if constexpr (kStream) hwy::FlushStream();  // Streamed stores come before whoever is told.
}

// Whether the halves of every rotary range lie at multiples of `align`.
bool IsAligned(const RealignArgs& args, size_t align) {
  const PlaneView& to = args.destination;
  const RowShape shape(args);
  const auto all = to.memory.address |
                   static_cast<uintptr_t>(to.block_stride | to.token_stride | to.head_stride) |
                   shape.before_bytes | shape.rotary_bytes / 2;
  return align > 0 && all % align == 0;
}

template <class Rotor, class D>
void RealignWith(D d, const RealignArgs& args, int64_t begin, int64_t end) {
  const size_t half = static_cast<size_t>(args.rotary_width / 2);
  if (args.streaming && (half == 0 || IsAligned(args, Rotor::StreamAlign(d, half)))) {
    return RealignRows<Rotor, true>(d, args, begin, end);
  }
  RealignRows<Rotor, false>(d, args, begin, end);
}

// `Rotor` where it takes this shape. Narrow rotary ranges take the plain one with narrower vectors.
template <class Rotor, class Plain>
void RealignLanes(const RealignArgs& args, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> full;
  const hn::CappedTag<float, 4> four;
  const hn::CappedTag<float, 1> one;
  const size_t half = static_cast<size_t>(args.rotary_width / 2);
  if (half > 0 && 4 * half <= kMaxPreparedFloats && Rotor::Fits(full, half)) {
    return RealignWith<Rotor>(full, args, begin, end);
  }
  if (Plain::Fits(full, half)) return RealignWith<Plain>(full, args, begin, end);
  if (Plain::Fits(four, half)) return RealignWith<Plain>(four, args, begin, end);
  RealignWith<Plain>(one, args, begin, end);
}

// Half, Pairs: the fastest rotors of a format for the two pairings.
template <class Format, class Half, class Pairs>
void RealignFormat(const RealignArgs& args, int64_t begin, int64_t end) {
  if (args.pairing == RotaryPairing::kHalfSplit) {
    return RealignLanes<Half, PlainRotor<Format, RotaryPairing::kHalfSplit>>(args, begin, end);
  }
  RealignLanes<Pairs, PlainRotor<Format, RotaryPairing::kInterleaved>>(args, begin, end);
}

// Rows [begin, end). REQUIRES: the elements of a destination row are adjacent.
void RealignAdjacent(const RealignArgs& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case Dtype::kFloat32:
      return RealignFormat<Float32Format, PlainRotor<Float32Format, RotaryPairing::kHalfSplit>,
                           NeighbourRotor<Float32Format>>(args, begin, end);
    case Dtype::kFloat16:
      return RealignFormat<Float16Format, PlainRotor<Float16Format, RotaryPairing::kHalfSplit>,
                           NeighbourRotor<Float16Format>>(args, begin, end);
    case Dtype::kBfloat16:
      return RealignFormat<Bfloat16Format, Bfloat16WordRotor,
                           PlainRotor<Bfloat16Format, RotaryPairing::kInterleaved>>(args, begin,
                                                                                    end);
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
