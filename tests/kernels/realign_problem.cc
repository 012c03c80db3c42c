#include "tests/kernels/realign_problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernels/codec.h"

namespace semshare {
namespace {

constexpr int64_t kChunkTokens = 32;
constexpr int64_t kBlockTokens = 16;
constexpr std::byte kSentinel{0xA5};

int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// An element's value, by the definition of its format.
double Decode(const std::byte* at, Dtype dtype) {
  if (dtype == Dtype::kFloat32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  const int mantissa_bits = dtype == Dtype::kFloat16 ? 10 : 7;
  const int bias = dtype == Dtype::kFloat16 ? 15 : 127;
  const int exponent_mask = (1 << (15 - mantissa_bits)) - 1;
  const int exponent = (bits >> mantissa_bits) & exponent_mask;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == exponent_mask) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

// The value of a byte under a codec, by the definition of its format.
double DecodeByte(uint8_t byte, Codec codec) {
  if (codec == Codec::kInt8) return static_cast<int8_t>(byte);
  const int exponent = (byte >> 3) & 15;
  const int mantissa = byte & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (byte & 0x80) != 0 ? -magnitude : magnitude;
}

// Half a unit in the last place, relative.
double Epsilon(Dtype dtype) {
  return dtype == Dtype::kFloat32 ? 0x1p-24 : dtype == Dtype::kFloat16 ? 0x1p-11 : 0x1p-8;
}

}  // namespace

double RoundToFormat(double value, int mantissa_bits, int exponent_min, double largest) {
  if (value == 0 || !std::isfinite(value)) return value;
  const int exponent = std::max(std::ilogb(value), exponent_min);
  const double quantum = std::ldexp(1, exponent - mantissa_bits);
  const double rounded = std::nearbyint(value / quantum) * quantum;
  if (std::abs(rounded) <= largest) return rounded;
  return std::copysign(std::numeric_limits<double>::infinity(), value);
}

double RoundToDtype(double value, Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return RoundToFormat(value, 23, -126, std::numeric_limits<float>::max());
    case Dtype::kFloat16:
      return RoundToFormat(value, 10, -14, 65504);
    case Dtype::kBfloat16:
      return RoundToFormat(value, 7, -126, 0x1.FEp127);
  }
  return 0;
}

std::string RealignShape::Name() const {
  const char* const layouts[] = {"Contiguous",    "HeadMajor",      "PagedNhd", "PagedHnd",
                                 "PagedCombined", "ElementStrided", "Reversed"};
  const char* const codecs[] = {"", "", "Fp8", "Int8"};
  return std::string(DtypeName(dtype)) + codecs[static_cast<int>(codec)] +
         (pairing == RotaryPairing::kHalfSplit ? "HalfSplit" : "Interleaved") +
         std::to_string(heads) + "x" + std::to_string(width) + "Rotary" +
         std::to_string(rotary_begin) + "to" + std::to_string(rotary_begin + rotary_width) +
         layouts[static_cast<int>(layout)] + (streaming ? "Streaming" : "");
}

std::vector<RealignShape> AllRealignShapes() {
  struct Range {
    int32_t width, begin, rotary;
  };
  // 64: whole vectors, with and without something around them; 6: fewer pairs than a small vector;
  // 10, 20 and 44: a vector and a rest; 0: no rotation.
  const Range ranges[] = {{64, 0, 64}, {96, 16, 64}, {80, 0, 20}, {96, 32, 44},
                          {24, 2, 10}, {6, 0, 6},    {3, 1, 2},   {64, 0, 0}};
  std::vector<RealignShape> shapes;
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kFloat16, Dtype::kBfloat16}) {
    for (const RotaryPairing pairing : {RotaryPairing::kHalfSplit, RotaryPairing::kInterleaved}) {
      for (const Range& range : ranges) {
        for (int layout = 0; layout <= static_cast<int>(TestLayout::kReversed); ++layout) {
          RealignShape shape{
              dtype,       pairing,      range.width == 24 ? 1 : 2,       range.width,
              range.begin, range.rotary, static_cast<TestLayout>(layout), 40};
          shapes.push_back(shape);
          shape.streaming = true;
          shapes.push_back(shape);
        }
        for (const Codec codec : {Codec::kFp8E4m3, Codec::kInt8}) {
          for (const TestLayout layout :
               {TestLayout::kContiguous, TestLayout::kPagedHnd, TestLayout::kElementStrided}) {
            shapes.push_back(
                {dtype, pairing, 2, range.width, range.begin, range.rotary, layout, 40, codec});
          }
        }
      }
    }
  }
  return shapes;
}

RealignProblem::RealignProblem(const RealignShape& shape)
    : shape_(shape),
      element_bytes_(DtypeBytes(shape.dtype)),
      stored_bytes_(StoredBytes(shape.codec, shape.dtype)),
      slab_offset_(256),
      // Right behind the payload, aligned to no more than it must be.
      scale_offset_(
          RoundUp(slab_offset_ + kChunkTokens * shape.heads * shape.width * stored_bytes_, 4)),
      chunk_bytes_(RoundUp(scale_offset_ + kChunkTokens * shape.heads * 4, 256)) {
  MakeSource();
  MakeView();
  MakeRows();
  const int64_t half = shape.rotary_width / 2;
  std::mt19937 random(7);
  std::uniform_real_distribution<double> turn(-3.2, 3.2);
  for (int64_t row = 0; row < shape.tokens && half > 0; ++row) {
    std::vector<double> phi;
    for (int64_t j = 0; j < half; ++j) phi.push_back(turn(random));
    for (const double angle : phi) angles_.push_back(static_cast<float>(std::cos(angle)));
    for (const double angle : phi) angles_.push_back(static_cast<float>(std::sin(angle)));
  }
}

void RealignProblem::MakeSource() {
  const int64_t chunks = (shape_.tokens + kChunkTokens - 1) / kChunkTokens;
  source_.resize(static_cast<size_t>(chunks * chunk_bytes_));
  std::mt19937 random(20240607);
  std::normal_distribution<float> normal(0, 2);
  if (shape_.codec != Codec::kRaw) {
    std::vector<float> head(static_cast<size_t>(shape_.width));
    for (int64_t i = 0; i < chunks * kChunkTokens * shape_.heads; ++i) {
      for (float& value : head) value = normal(random);
      const int64_t chunk = i / (kChunkTokens * shape_.heads) * chunk_bytes_;
      const int64_t within = i % (kChunkTokens * shape_.heads);
      std::byte* payload =
          &source_[static_cast<size_t>(chunk + slab_offset_ + within * shape_.width)];
      const float scale = EncodeHead(shape_.codec, head, reinterpret_cast<uint8_t*>(payload));
      std::memcpy(&source_[static_cast<size_t>(chunk + scale_offset_ + within * 4)], &scale, 4);
    }
    return;
  }
  // Any pattern of bits with a moderate exponent will do: the value is decoded, not assumed.
  for (int64_t at = 0; at < chunks * chunk_bytes_; at += element_bytes_) {
    const float value = normal(random);
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (shape_.dtype == Dtype::kBfloat16) bits >>= 16;
    if (shape_.dtype == Dtype::kFloat16) bits = 0x2C00 + (bits & 0x9FFF);  // 2^-4 to 2^4
    std::memcpy(&source_[static_cast<size_t>(at)], &bits, static_cast<size_t>(element_bytes_));
  }
}

void RealignProblem::MakeView() {
  slots_ = RoundUp(shape_.tokens + 7, kBlockTokens);
  const int64_t head_bytes = shape_.width * element_bytes_;
  const int64_t row_bytes = shape_.heads * head_bytes;
  // Contiguous; the layouts below change what differs.
  view_ = ContiguousView(MemorySpan{}, shape_.heads, shape_.width, shape_.dtype);
  view_.memory.bytes = slots_ * row_bytes;
  switch (shape_.layout) {
    case TestLayout::kContiguous:
      break;
    case TestLayout::kHeadMajor:
      view_.block_stride = head_bytes;
      view_.head_stride = slots_ * head_bytes;
      break;
    case TestLayout::kPagedNhd:
      view_.block_tokens = kBlockTokens;
      view_.block_stride = kBlockTokens * row_bytes;
      view_.token_stride = row_bytes;
      break;
    case TestLayout::kPagedHnd:
      view_.block_tokens = kBlockTokens;
      view_.block_stride = kBlockTokens * row_bytes;
      view_.token_stride = head_bytes;
      view_.head_stride = kBlockTokens * head_bytes;
      break;
    case TestLayout::kPagedCombined:
      view_.block_tokens = kBlockTokens;
      view_.block_stride = 2 * kBlockTokens * row_bytes;
      view_.token_stride = row_bytes;
      view_.memory.bytes = (2 * slots_ - kBlockTokens) * row_bytes;
      break;
    case TestLayout::kElementStrided:
      view_.head_stride = element_bytes_;
      view_.element_stride = shape_.heads * element_bytes_;
      break;
    case TestLayout::kReversed:
      // Block b's token 0 lies where block b + 1 would begin; the last token just after block b's.
      view_.block_tokens = kBlockTokens;
      view_.block_stride = kBlockTokens * row_bytes;
      view_.token_stride = -row_bytes;
      first_slot_ = kBlockTokens;
      view_.memory.bytes = (slots_ + kBlockTokens) * row_bytes;
      break;
  }
  blank_.assign(static_cast<size_t>(view_.memory.bytes), kSentinel);
}

void RealignProblem::MakeRows() {
  std::vector<int64_t> slots;
  for (int64_t slot = 0; slot < slots_; ++slot) slots.push_back(first_slot_ + slot);
  // Runs of adjacent slots with some blocks exchanged, as a paged cache has them.
  std::mt19937 random(5);
  for (size_t block = 0; block + 2 * kBlockTokens <= slots.size(); block += kBlockTokens) {
    if (random() % 2 == 0) continue;
    const auto at = slots.begin() + static_cast<int64_t>(block);
    std::swap_ranges(at, at + kBlockTokens, at + kBlockTokens);
  }
  for (int64_t token = 0; token < shape_.tokens; ++token) {
    RealignRow row;
    row.chunk_offset = token / kChunkTokens * chunk_bytes_;
    row.chunk_token = static_cast<int32_t>(token % kChunkTokens);
    row.angle_row = static_cast<int32_t>((token * 7) % shape_.tokens);
    if (token % 20 >= 12) row.angle_row = -1;  // runs of copied rows
    row.slot = token % 11 == 3 ? -1 - token : slots[static_cast<size_t>(token)];
    rows_.push_back(row);
  }
}

RealignArgs RealignProblem::Args(MemorySpan source, MemorySpan rows, MemorySpan angles,
                                 MemorySpan destination) const {
  RealignArgs args;
  args.dtype = shape_.dtype;
  args.codec = shape_.codec;
  args.heads = shape_.heads;
  args.width = shape_.width;
  args.rotary_begin = shape_.rotary_begin;
  args.rotary_width = shape_.rotary_width;
  args.pairing = shape_.pairing;
  args.source = source;
  args.slab_offset = slab_offset_;
  args.scale_offset = shape_.codec == Codec::kRaw ? 0 : scale_offset_;
  args.rows = rows;
  args.row_count = static_cast<int64_t>(rows_.size());
  args.angles = angles;
  args.angle_rows = shape_.tokens;
  args.destination = view_;
  args.destination.memory = destination;
  args.streaming = shape_.streaming;
  return args;
}

double RealignProblem::SourceValue(const RealignRow& row, int32_t head, int32_t element) const {
  const int64_t first = int64_t{row.chunk_token} * shape_.heads + head;
  const std::byte* chunk = &source_[static_cast<size_t>(row.chunk_offset)];
  const std::byte* at = chunk + slab_offset_ + (first * shape_.width + element) * stored_bytes_;
  if (shape_.codec == Codec::kRaw) return Decode(at, shape_.dtype);
  float scale;
  std::memcpy(&scale, chunk + scale_offset_ + first * 4, sizeof(scale));
  return DecodeByte(std::to_integer<uint8_t>(*at), shape_.codec) * scale;
}

bool RealignProblem::IsRight(const std::vector<std::byte>& result, const RealignRow& row,
                             int32_t head, int32_t element) const {
  const size_t at = static_cast<size_t>(view_.Offset(row.slot, head, element));
  const double actual = Decode(&result[at], shape_.dtype);
  if (std::isnan(actual)) return false;
  const double own = SourceValue(row, head, element);
  const int32_t e = element - shape_.rotary_begin;
  if (row.angle_row < 0 || e < 0 || e >= shape_.rotary_width) {
    if (shape_.codec == Codec::kRaw) return actual == own;
    return std::abs(actual - own) <= Epsilon(shape_.dtype) * std::abs(own) * 1.01 + 0x1p-22;
  }
  const int32_t half = shape_.rotary_width / 2;
  const bool split = shape_.pairing == RotaryPairing::kHalfSplit;
  const int32_t j = split ? e % half : e / 2;
  const bool is_first = split ? e < half : e % 2 == 0;
  const int32_t partner = split ? (is_first ? half : -half) : (is_first ? 1 : -1);
  const double other = SourceValue(row, head, element + partner);
  const size_t angle = static_cast<size_t>(row.angle_row) * 2 * half + static_cast<size_t>(j);
  const double cosine = angles_[angle];
  const double sine = angles_[angle + static_cast<size_t>(half)];
  const double expected = own * cosine + (is_first ? -other : other) * sine;
  // The one rounding at the store, and fp32's own error before it.
  const double bound = Epsilon(shape_.dtype) * std::abs(expected) * 1.01 + 0x1p-25 * 1.01 +
                       0x1p-22 * (std::abs(own) + std::abs(other));
  return std::abs(actual - expected) <= bound;
}

void RealignProblem::Verify(const std::vector<std::byte>& result) const {
  ASSERT_EQ(result.size(), blank_.size());
  std::vector<bool> written(result.size());
  for (const RealignRow& row : rows_) {
    if (row.slot < 0) continue;
    for (int32_t head = 0; head < shape_.heads; ++head) {
      for (int32_t element = 0; element < shape_.width; ++element) {
        const int64_t at = view_.Offset(row.slot, head, element);
        if (!IsRight(result, row, head, element)) {
          FAIL() << "slot " << row.slot << " head " << head << " element " << element
                 << " angle row " << row.angle_row << ": "
                 << Decode(&result[static_cast<size_t>(at)], shape_.dtype) << " from "
                 << SourceValue(row, head, element);
        }
        std::fill_n(written.begin() + at, element_bytes_, true);
      }
    }
  }
  for (size_t i = 0; i < result.size(); ++i) {
    if (!written[i] && result[i] != kSentinel) FAIL() << "byte " << i << " was written";
  }
}

}  // namespace semshare
