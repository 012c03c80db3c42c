#include "kernels/checks.h"

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "kernels/codec.h"
#include "kernels/hamming_key.h"

namespace semshare {
namespace {

// Products of two int64 values, and sums of a few of them, fit.
__extension__ typedef __int128 Wide;

// A term of an address above this is a bug or an attack: no memory is that big.
constexpr int64_t kMaxOffset = int64_t{1} << 60;

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

absl::Status CheckRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Invalid(field, " is ", value, ": expected ", low, " to ", high);
}

// The product of `dims`, all >= 0, times element_bytes; -1 if it exceeds kMaxOffset.
int64_t TotalBytes(std::initializer_list<int64_t> dims, int64_t element_bytes) {
  Wide total = element_bytes;
  for (const int64_t dim : dims) {
    total *= dim;
    if (total > kMaxOffset) return -1;
  }
  return static_cast<int64_t>(total);
}

// That `span` holds an array of these dims, aligned to `alignment` bytes.
absl::Status CheckArray(const char* field, const MemorySpan& span,
                        std::initializer_list<int64_t> dims, int64_t element_bytes,
                        uintptr_t alignment) {
  const int64_t needed = TotalBytes(dims, element_bytes);
  if (needed < 0) return Invalid(field, ": the size overflows");
  if (span.bytes < needed) {
    return Invalid(field, " has ", span.bytes, " bytes: needs ", needed);
  }
  if (needed > 0 && span.address == 0) return Invalid(field, " has no memory");
  if (needed > 0 && span.address % alignment != 0) {
    return Invalid(field, " is not aligned to ", alignment, " bytes");
  }
  return absl::OkStatus();
}

// A table's contents if the host can read them, else empty.
template <typename T>
absl::Span<const T> HostTable(const MemorySpan& span, int64_t count) {
  if (span.kind != MemoryKind::kHost || count == 0) return {};
  return absl::MakeConstSpan(reinterpret_cast<const T*>(span.address), static_cast<size_t>(count));
}

absl::Status CheckIds(const MemorySpan& ids, int64_t count, int64_t vocab) {
  int64_t i = 0;
  for (const uint32_t id : HostTable<uint32_t>(ids, count)) {
    if (id >= vocab) return Invalid("ids[", i, "] is ", id, ": the vocabulary has ", vocab);
    ++i;
  }
  return absl::OkStatus();
}

absl::Status CheckWindows(const MemorySpan& windows, int64_t window_count, int64_t count) {
  const absl::Span<const int64_t> table = HostTable<int64_t>(windows, 2 * window_count);
  for (size_t i = 0; i < table.size(); i += 2) {
    if (table[i] < 0 || table[i] > table[i + 1] || table[i + 1] > count) {
      return Invalid("windows[", i / 2, "] is [", table[i], ", ", table[i + 1],
                     "): expected a range within [0, ", count, ")");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBits(int32_t bits) {
  SEMSHARE_RETURN_IF_ERROR(CheckRange("bits", bits, 64, kMaxCodeBits));
  if (bits % 64 != 0) return Invalid("bits is ", bits, ": expected a multiple of 64");
  return absl::OkStatus();
}

// What the bounds checks of one operation share.
struct RealignBounds {
  int64_t element_bytes = 0;    // of one element at the destination
  int64_t stored_bytes = 0;     // of one element in the source
  int64_t row_bytes = 0;        // of a source row's payload
  int64_t scale_bytes = 0;      // of a source row's scales; 0: the codec has none
  int64_t chunk_alignment = 0;  // of chunk offsets
  Wide low = 0;                 // smallest offset of a byte within a destination row, relative
  Wide high = 0;                // one past the largest
  bool strides_positive = false;
};

absl::Status CheckView(const RealignArgs& args, RealignBounds& bounds) {
  const PlaneView& view = args.destination;
  SEMSHARE_RETURN_IF_ERROR(CheckRange("destination.block_tokens", view.block_tokens, 1,
                                      std::numeric_limits<int64_t>::max()));
  const int64_t bytes = bounds.element_bytes;
  if (view.memory.address % bytes != 0) return Invalid("destination.memory is not aligned");
  const int64_t strides[] = {view.block_stride, view.token_stride, view.head_stride,
                             view.element_stride};
  const char* const names[] = {"block_stride", "token_stride", "head_stride", "element_stride"};
  bounds.strides_positive = true;
  for (int i = 0; i < 4; ++i) {
    if (strides[i] % bytes != 0) {
      return Invalid("destination.", names[i], " is ", strides[i],
                     ": expected a multiple of the element size, ", bytes);
    }
    if (strides[i] < 0) bounds.strides_positive = false;
  }
  const Wide head = Wide{args.heads - 1} * view.head_stride;
  const Wide element = Wide{args.width - 1} * view.element_stride;
  for (const Wide extent : {head, element}) {
    if (extent > kMaxOffset || extent < -kMaxOffset) {
      return Invalid("destination: the extent of a row overflows");
    }
    bounds.low += std::min<Wide>(0, extent);
    bounds.high += std::max<Wide>(0, extent);
  }
  bounds.high += bytes;
  return absl::OkStatus();
}

absl::Status CheckRealignShape(const RealignArgs& args) {
  SEMSHARE_RETURN_IF_ERROR(CheckRange("heads", args.heads, 1, kMaxHeads));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("width", args.width, 1, kMaxWidth));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("rotary_width", args.rotary_width, 0, args.width));
  if (args.rotary_width % 2 != 0) {
    return Invalid("rotary_width is ", args.rotary_width, ": expected an even number");
  }
  SEMSHARE_RETURN_IF_ERROR(
      CheckRange("rotary_begin", args.rotary_begin, 0, args.width - args.rotary_width));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("row_count", args.row_count, 0, kMaxRealignRows));
  SEMSHARE_RETURN_IF_ERROR(
      CheckRange("angle_rows", args.angle_rows, 0, std::numeric_limits<int32_t>::max()));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("slab_offset", args.slab_offset, 0, kMaxOffset));
  SEMSHARE_RETURN_IF_ERROR(
      CheckArray("rows", args.rows, {args.row_count}, sizeof(RealignRow), alignof(RealignRow)));
  if (args.rotary_width == 0) return absl::OkStatus();
  return CheckArray("angles", args.angles, {args.angle_rows, args.rotary_width}, sizeof(float),
                    alignof(float));
}

// Extremes over the rows that are not skipped.
struct RowExtremes {
  int64_t offset_min = std::numeric_limits<int64_t>::max();
  int64_t offset_max = std::numeric_limits<int64_t>::min();
  int32_t token_min = std::numeric_limits<int32_t>::max();
  int32_t token_max = std::numeric_limits<int32_t>::min();
  int32_t angle_min = std::numeric_limits<int32_t>::max();
  int32_t angle_max = std::numeric_limits<int32_t>::min();
  int64_t slot_max = -1;  // -1: every row is skipped
  uint64_t offset_bits = 0;
};

RowExtremes FindExtremes(absl::Span<const RealignRow> rows) {
  RowExtremes extremes;
  for (const RealignRow& row : rows) {
    if (row.slot < 0) continue;
    extremes.offset_min = std::min(extremes.offset_min, row.chunk_offset);
    extremes.offset_max = std::max(extremes.offset_max, row.chunk_offset);
    extremes.token_min = std::min(extremes.token_min, row.chunk_token);
    extremes.token_max = std::max(extremes.token_max, row.chunk_token);
    extremes.angle_min = std::min(extremes.angle_min, row.angle_row);
    extremes.angle_max = std::max(extremes.angle_max, row.angle_row);
    extremes.slot_max = std::max(extremes.slot_max, row.slot);
    extremes.offset_bits |= static_cast<uint64_t>(row.chunk_offset);
  }
  return extremes;
}

// True if the extremes alone prove every row good. It may say false of good rows.
bool ExtremesFit(const RealignArgs& args, const RealignBounds& bounds, const RowExtremes& rows) {
  if (rows.slot_max < 0) return true;
  if (rows.angle_min < -1 || (args.rotary_width > 0 && rows.angle_max >= args.angle_rows)) {
    return false;
  }
  const Wide tokens = Wide{rows.token_max} + 1;
  const Wide payload_end = args.slab_offset + tokens * bounds.row_bytes;
  const Wide scales_end = args.scale_offset + tokens * bounds.scale_bytes;
  if (rows.offset_min < 0 || rows.token_min < 0 ||
      rows.offset_max + std::max(payload_end, scales_end) > args.source.bytes ||
      rows.offset_bits % static_cast<uint64_t>(bounds.chunk_alignment) != 0) {
    return false;
  }
  const PlaneView& view = args.destination;
  const Wide slot_end = Wide{rows.slot_max / view.block_tokens} * view.block_stride +
                        Wide{std::min(rows.slot_max, view.block_tokens - 1)} * view.token_stride;
  return bounds.strides_positive && slot_end + bounds.high <= view.memory.bytes;
}

absl::Status CheckRow(const RealignArgs& args, const RealignBounds& bounds, int64_t index,
                      const RealignRow& row) {
  if (row.slot < 0) return absl::OkStatus();
  if (row.chunk_token < 0) return Invalid("rows[", index, "].chunk_token is ", row.chunk_token);
  const bool angle_ok =
      row.angle_row >= -1 && (args.rotary_width == 0 || row.angle_row < args.angle_rows);
  if (!angle_ok) {
    return Invalid("rows[", index, "].angle_row is ", row.angle_row, ": the angle table has ",
                   args.angle_rows, " rows");
  }
  const Wide tokens = Wide{row.chunk_token} + 1;
  const Wide end = row.chunk_offset + std::max(args.slab_offset + tokens * bounds.row_bytes,
                                               args.scale_offset + tokens * bounds.scale_bytes);
  if (row.chunk_offset < 0 || end > args.source.bytes) {
    return Invalid("rows[", index, "] (chunk_offset ", row.chunk_offset, ", chunk_token ",
                   row.chunk_token, ") lies outside the source of ", args.source.bytes, " bytes");
  }
  if (row.chunk_offset % bounds.chunk_alignment != 0) {
    return Invalid("rows[", index, "].chunk_offset is not aligned to ", bounds.chunk_alignment,
                   " bytes");
  }
  const PlaneView& view = args.destination;
  const Wide block = Wide{row.slot / view.block_tokens} * view.block_stride;
  const Wide token = Wide{row.slot % view.block_tokens} * view.token_stride;
  for (const Wide term : {block, token}) {
    if (term > kMaxOffset || term < -kMaxOffset) {
      return Invalid("rows[", index, "].slot is ", row.slot, ": its address overflows");
    }
  }
  if (block + token + bounds.low < 0 || block + token + bounds.high > view.memory.bytes) {
    return Invalid("rows[", index, "].slot is ", row.slot, ": it lies outside the destination of ",
                   view.memory.bytes, " bytes");
  }
  return absl::OkStatus();
}

// The extremes of the table looked at last: the planes of a batch share one.
class ExtremesCache {
 public:
  const RowExtremes& For(const MemorySpan& span, absl::Span<const RealignRow> rows) {
    if (!filled_ || span.address != address_ || rows.size() != count_) {
      extremes_ = FindExtremes(rows);
      address_ = span.address;
      count_ = rows.size();
      filled_ = true;
    }
    return extremes_;
  }

 private:
  bool filled_ = false;
  uintptr_t address_ = 0;
  size_t count_ = 0;
  RowExtremes extremes_;
};

absl::Status CheckRealignRows(const RealignArgs& args, ExtremesCache& cache) {
  SEMSHARE_RETURN_IF_ERROR(CheckRealignShape(args));
  RealignBounds bounds;
  bounds.element_bytes = DtypeBytes(args.dtype);
  bounds.stored_bytes = StoredBytes(args.codec, args.dtype);
  bounds.row_bytes = int64_t{args.heads} * args.width * bounds.stored_bytes;
  bounds.chunk_alignment = bounds.stored_bytes;
  const bool scaled = args.codec != Codec::kRaw;
  if (scaled) {
    bounds.scale_bytes = args.heads * static_cast<int64_t>(sizeof(float));
    bounds.chunk_alignment = alignof(float);
    SEMSHARE_RETURN_IF_ERROR(CheckRange("scale_offset", args.scale_offset, 0, kMaxOffset));
  }
  SEMSHARE_RETURN_IF_ERROR(CheckView(args, bounds));
  if (args.row_count == 0) return absl::OkStatus();
  if (args.source.address == 0) return Invalid("source has no memory");
  const uintptr_t slab = args.source.address + static_cast<uintptr_t>(args.slab_offset);
  if (slab % static_cast<uintptr_t>(bounds.stored_bytes) != 0) {
    return Invalid("source + slab_offset is not aligned to the element size");
  }
  const uintptr_t scales = args.source.address + static_cast<uintptr_t>(args.scale_offset);
  if (scaled && scales % alignof(float) != 0) {
    return Invalid("source + scale_offset is not aligned to 4 bytes");
  }
  if (args.destination.memory.address == 0) return Invalid("destination.memory has no memory");
  const absl::Span<const RealignRow> rows = HostTable<RealignRow>(args.rows, args.row_count);
  // One cheap pass proves nearly every good table; only a table that it cannot prove is looked at
  // row by row.
  if (ExtremesFit(args, bounds, cache.For(args.rows, rows))) return absl::OkStatus();
  for (size_t i = 0; i < rows.size(); ++i) {
    SEMSHARE_RETURN_IF_ERROR(CheckRow(args, bounds, static_cast<int64_t>(i), rows[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckQueries(const MemorySpan& queries, int64_t query_count, int32_t words) {
  SEMSHARE_RETURN_IF_ERROR(CheckRange("words", words, 1, kMaxCodeBits / 64));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("query_count", query_count, 0, kMaxOffset));
  return CheckArray("queries", queries, {query_count, words}, sizeof(uint64_t), alignof(uint64_t));
}

}  // namespace

absl::Status KernelsSupportRealign(const RealignArgs& args) {
  if (args.dtype != Dtype::kFloat32 && args.dtype != Dtype::kFloat16 &&
      args.dtype != Dtype::kBfloat16) {
    return absl::UnimplementedError(absl::StrCat("dtype ", static_cast<int>(args.dtype),
                                                 " has no kernel; supported: float32, float16, "
                                                 "bfloat16"));
  }
  if (args.codec != Codec::kRaw && args.codec != Codec::kFp8E4m3 && args.codec != Codec::kInt8) {
    return absl::UnimplementedError(absl::StrCat("codec ", static_cast<int>(args.codec),
                                                 " has no kernel; supported: raw, fp8_e4m3, int8"));
  }
  if (args.pairing != RotaryPairing::kHalfSplit && args.pairing != RotaryPairing::kInterleaved) {
    return absl::UnimplementedError(absl::StrCat("pairing ", static_cast<int>(args.pairing),
                                                 " has no kernel; supported: half_split, "
                                                 "interleaved"));
  }
  if (args.width > kMaxWidth) {
    return absl::UnimplementedError(
        absl::StrCat("width ", args.width, " has no kernel; supported: 1 to ", kMaxWidth));
  }
  return absl::OkStatus();
}

absl::Status CheckRegisterHost(const MemorySpan& memory) {
  if (memory.kind != MemoryKind::kHost) return Invalid("memory is not host memory");
  SEMSHARE_RETURN_IF_ERROR(CheckRange("memory.bytes", memory.bytes, 1, kMaxOffset));
  if (memory.address == 0) return Invalid("memory has no address");
  return absl::OkStatus();
}

absl::Status CheckCopy(const MemorySpan& destination, const MemorySpan& source) {
  if (source.bytes < 0 || destination.bytes != source.bytes) {
    return Invalid("destination has ", destination.bytes, " bytes: the source has ", source.bytes);
  }
  if (source.bytes == 0) return absl::OkStatus();
  if (source.address == 0) return Invalid("source has no memory");
  if (destination.address == 0) return Invalid("destination has no memory");
  const uintptr_t bytes = static_cast<uintptr_t>(source.bytes);
  if (source.kind == destination.kind && source.address < destination.address + bytes &&
      destination.address < source.address + bytes) {
    return Invalid("source and destination overlap");
  }
  return absl::OkStatus();
}

absl::Status CheckRealign(const RealignArgs& args) {
  ExtremesCache cache;
  return CheckRealignRows(args, cache);
}

absl::Status CheckRealignBatch(absl::Span<const RealignArgs> batch) {
  SEMSHARE_RETURN_IF_ERROR(
      CheckRange("batch.size", static_cast<int64_t>(batch.size()), 0, kMaxRealignBatch));
  ExtremesCache cache;
  for (size_t i = 0; i < batch.size(); ++i) {
    absl::Status status = KernelsSupportRealign(batch[i]);
    if (status.ok()) status = CheckRealignRows(batch[i], cache);
    if (status.ok()) continue;
    if (batch.size() == 1) return status;
    return absl::Status(status.code(), absl::StrCat("realign[", i, "]: ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status CheckProject(const ProjectArgs& args) {
  SEMSHARE_RETURN_IF_ERROR(CheckRange("m", args.m, 0, kMaxProjectDim));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("n", args.n, 1, kMaxProjectDim));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("k", args.k, 1, kMaxProjectDim));
  constexpr int64_t kBytes = sizeof(float);
  SEMSHARE_RETURN_IF_ERROR(CheckArray("a", args.a, {args.m, args.k}, kBytes, kBytes));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("b", args.b, {args.k, args.n}, kBytes, kBytes));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("c", args.c, {args.m, args.n}, kBytes, kBytes));
  if (args.bias.bytes == 0) return absl::OkStatus();
  return CheckArray("bias", args.bias, {args.n}, kBytes, kBytes);
}

absl::Status CheckSignature(const SignatureArgs& args) {
  SEMSHARE_RETURN_IF_ERROR(CheckBits(args.bits));
  SEMSHARE_RETURN_IF_ERROR(
      CheckRange("vocab", args.vocab, 0, std::numeric_limits<uint32_t>::max()));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("count", args.count, 0, kMaxOffset));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("window_count", args.window_count, 0, kMaxOffset));
  constexpr int64_t kFloat = sizeof(float);
  SEMSHARE_RETURN_IF_ERROR(
      CheckArray("projected", args.projected, {args.vocab, args.bits}, kFloat, kFloat));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("weights", args.weights, {args.vocab}, kFloat, kFloat));
  SEMSHARE_RETURN_IF_ERROR(
      CheckArray("ids", args.ids, {args.count}, sizeof(uint32_t), alignof(uint32_t)));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("windows", args.windows, {args.window_count, 2},
                                      sizeof(int64_t), alignof(int64_t)));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("codes", args.codes, {args.window_count, args.bits / 64},
                                      sizeof(uint64_t), alignof(uint64_t)));
  SEMSHARE_RETURN_IF_ERROR(CheckIds(args.ids, args.count, args.vocab));
  return CheckWindows(args.windows, args.window_count, args.count);
}

absl::Status CheckHammingTopK(const HammingTopKArgs& args) {
  SEMSHARE_RETURN_IF_ERROR(CheckQueries(args.queries, args.query_count, args.words));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("count", args.count, 0, kMaxHammingIndex));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("k", args.k, 1, kMaxTopK));
  constexpr int64_t kWord = sizeof(uint64_t);
  SEMSHARE_RETURN_IF_ERROR(CheckArray("codes", args.codes, {args.count, args.words}, kWord, kWord));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("live", args.live, {(args.count + 63) / 64}, kWord, kWord));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("indices", args.indices, {args.query_count, args.k},
                                      sizeof(int64_t), alignof(int64_t)));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("distances", args.distances, {args.query_count, args.k},
                                      sizeof(int32_t), alignof(int32_t)));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("shortlist", args.shortlist, 0, kMaxHammingIndex));
  if (args.shortlist == 0) return absl::OkStatus();
  return CheckArray("first_words", args.first_words, {args.count}, kWord, kWord);
}

absl::Status CheckTokenCodes(const TokenCodesArgs& args) {
  SEMSHARE_RETURN_IF_ERROR(CheckBits(args.bits));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("width", args.width, 2, kMaxWidth));
  if (args.width % 2 != 0) return Invalid("width is ", args.width, ": expected an even number");
  SEMSHARE_RETURN_IF_ERROR(
      CheckRange("vocab", args.vocab, 0, std::numeric_limits<uint32_t>::max()));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("count", args.count, 0, kMaxOffset));
  if (!(args.theta > 0 && args.theta <= std::numeric_limits<double>::max())) {
    return Invalid("theta is ", args.theta, ": expected a positive finite number");
  }
  constexpr int64_t kFloat = sizeof(float);
  SEMSHARE_RETURN_IF_ERROR(
      CheckArray("table", args.table, {args.vocab, args.width}, kFloat, kFloat));
  SEMSHARE_RETURN_IF_ERROR(
      CheckArray("matrix", args.matrix, {args.width, args.bits}, kFloat, kFloat));
  SEMSHARE_RETURN_IF_ERROR(
      CheckArray("ids", args.ids, {args.count}, sizeof(uint32_t), alignof(uint32_t)));
  SEMSHARE_RETURN_IF_ERROR(
      CheckArray("positions", args.positions, {args.count}, sizeof(int64_t), alignof(int64_t)));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("codes", args.codes, {args.count, args.bits / 64},
                                      sizeof(uint64_t), alignof(uint64_t)));
  return CheckIds(args.ids, args.count, args.vocab);
}

absl::Status CheckNearestCode(const NearestCodeArgs& args) {
  SEMSHARE_RETURN_IF_ERROR(CheckQueries(args.queries, args.query_count, args.words));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("count", args.count, 0, kMaxHammingIndex));
  constexpr int64_t kWord = sizeof(uint64_t);
  SEMSHARE_RETURN_IF_ERROR(CheckArray("codes", args.codes, {args.count, args.words}, kWord, kWord));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("windows", args.windows, {args.query_count, 2},
                                      sizeof(int64_t), alignof(int64_t)));
  SEMSHARE_RETURN_IF_ERROR(
      CheckArray("indices", args.indices, {args.query_count}, sizeof(int64_t), alignof(int64_t)));
  SEMSHARE_RETURN_IF_ERROR(CheckArray("distances", args.distances, {args.query_count},
                                      sizeof(int32_t), alignof(int32_t)));
  return CheckWindows(args.windows, args.query_count, args.count);
}

absl::Status CheckChecksum(absl::Span<const MemorySpan> spans, const MemorySpan& digests) {
  const int64_t count = static_cast<int64_t>(spans.size());
  SEMSHARE_RETURN_IF_ERROR(CheckRange("spans.size", count, 0, kMaxChecksumSpans));
  if (digests.kind != MemoryKind::kHost) return Invalid("digests is not host memory");
  SEMSHARE_RETURN_IF_ERROR(
      CheckArray("digests", digests, {count}, sizeof(uint64_t), alignof(uint64_t)));
  for (int64_t i = 0; i < count; ++i) {
    const MemorySpan& span = spans[static_cast<size_t>(i)];
    if (span.bytes < 0 || (span.bytes > 0 && span.address == 0)) {
      return Invalid("spans[", i, "] has ", span.bytes, " bytes and no memory");
    }
  }
  return absl::OkStatus();
}

}  // namespace semshare
