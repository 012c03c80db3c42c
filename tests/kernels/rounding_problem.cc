#include "tests/kernels/rounding_problem.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "tests/kernels/realign_problem.h"

namespace semshare {
namespace {

constexpr int32_t kHalf = 64;  // pairs of a row: whole vectors

// Mantissas at, just below and just above the ties of both formats, after even and odd values.
constexpr uint32_t kMantissas[] = {0,        1,        0x0FFF,   0x1000,   0x1001,   0x1FFF,
                                   0x2000,   0x2FFF,   0x3000,   0x3001,   0x7FFF,   0x8000,
                                   0x8001,   0xFFFF,   0x10000,  0x17FFF,  0x18000,  0x18001,
                                   0x400000, 0x7FEFFF, 0x7FF000, 0x7F7FFF, 0x7F8000, 0x7FFFFF};

}  // namespace

RoundingProblem::RoundingProblem(Dtype dtype, RotaryPairing pairing)
    : dtype_(dtype), pairing_(pairing) {
  for (uint32_t exponent = 0; exponent < 256; ++exponent) {
    for (const uint32_t mantissa : kMantissas) {
      // Angles are finite; that of a NaN element is NaN with the low half of a bfloat16, zeros.
      if (dtype == Dtype::kBfloat16 && exponent == 255 && (mantissa & 0xFFFF) != 0) continue;
      for (const uint32_t sign : {0U, 1U}) {
        values_.push_back(std::bit_cast<float>(sign << 31 | exponent << 23 | mantissa));
      }
    }
  }
  values_.resize((values_.size() + kHalf - 1) / kHalf * kHalf);
  for (size_t i = 0; i < values_.size(); i += kHalf) {
    const auto first = values_.begin() + static_cast<int64_t>(i);
    angles_.insert(angles_.end(), first, first + kHalf);
    angles_.resize(angles_.size() + kHalf);  // sines: 0
    const int64_t row = static_cast<int64_t>(i) / kHalf;
    rows_.push_back({0, 0, static_cast<int32_t>(row), row});
  }
  source_.resize(2 * kHalf);  // x = 1, y = 0
  for (int32_t j = 0; j < kHalf; ++j) {
    source_[static_cast<size_t>(PairFirst(j, pairing))] =
        dtype == Dtype::kFloat16 ? 0x3C00 : 0x3F80;
  }
  result_.resize(2 * values_.size());
}

RealignArgs RoundingProblem::Args() {
  RealignArgs args;
  args.dtype = dtype_;
  args.pairing = pairing_;
  args.heads = 1;
  args.width = args.rotary_width = 2 * kHalf;
  args.source = HostSpan(source_.data(), 2 * kHalf);
  args.row_count = static_cast<int64_t>(rows_.size());
  args.rows = HostSpan(rows_.data(), args.row_count);
  args.angles = HostSpan(angles_.data(), static_cast<int64_t>(angles_.size()));
  args.angle_rows = args.row_count;
  args.destination = ContiguousView(HostSpan(result_.data(), static_cast<int64_t>(result_.size())),
                                    1, 2 * kHalf, dtype_);
  return args;
}

void RoundingProblem::VerifyValue(float value, uint16_t bits) const {
  const bool is_float16 = dtype_ == Dtype::kFloat16;
  const int infinity = is_float16 ? 0x7C00 : 0x7F80;
  const int magnitude = bits & 0x7FFF;
  if (std::isnan(value)) {
    const int quiet_bit = is_float16 ? 0x0200 : 0x0040;
    ASSERT_GT(magnitude, infinity);
    ASSERT_NE(bits & quiet_bit, 0);
    return;
  }
  const double expected = std::abs(RoundToDtype(value, dtype_));
  ASSERT_EQ((bits & 0x8000) != 0, std::signbit(value)) << std::hexfloat << value;
  if (std::isinf(expected)) {
    ASSERT_EQ(magnitude, infinity) << std::hexfloat << value;
    return;
  }
  // The value by the definition of the formats.
  const int mantissa_bits = is_float16 ? 10 : 7;
  const int bias = is_float16 ? 15 : 127;
  const int exponent = magnitude >> mantissa_bits;
  const int mantissa = magnitude & ((1 << mantissa_bits) - 1);
  const double actual = std::ldexp(exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits),
                                   (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
  ASSERT_EQ(actual, expected) << std::hexfloat << value;
}

void RoundingProblem::Verify() const {
  for (size_t i = 0; i < values_.size(); ++i) {
    const size_t row = i / kHalf;
    const int32_t j = static_cast<int32_t>(i % kHalf);
    const size_t at = row * 2 * kHalf + static_cast<size_t>(PairFirst(j, pairing_));
    ASSERT_NO_FATAL_FAILURE(VerifyValue(values_[i], result_[at]));
  }
}

}  // namespace semshare
