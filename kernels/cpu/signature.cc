#include "kernels/cpu/signature.h"

#include "kernels/cpu/operations.h"

// This file is compiled once per instruction set; the best one is chosen once per operation.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/signature.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef SEMSHARE_KERNELS_CPU_SIGNATURE_ONCE
#define SEMSHARE_KERNELS_CPU_SIGNATURE_ONCE
namespace semshare {
namespace {

constexpr int64_t kWordBits = 64;

// What is added up: weights[id] * rows[id * row_floats + ...] over the tokens of a window.
struct Rows {
  const float* rows;  // at the first bit
  int64_t row_floats;
  const float* weights;
  const uint32_t* ids;
};

}  // namespace
}  // namespace semshare
#endif  // SEMSHARE_KERNELS_CPU_SIGNATURE_ONCE

HWY_BEFORE_NAMESPACE();
namespace semshare {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows are anywhere in a table that no cache holds: they are asked for this many tokens ahead.
constexpr int64_t kAhead = 8;

// sums[0, kWordBits), in fp64, tokens in their order.
void SumWord(const Rows& in, int64_t begin, int64_t end, double* HWY_RESTRICT sums) {
  const HWY_CAPPED(double, 8) d64;
  const hn::Rebind<float, decltype(d64)> d32;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d64));
  // As many sums at a time as registers hold.
  for (int64_t bit = 0; bit < kWordBits; bit += 8 * lanes) {
    auto s0 = hn::Zero(d64), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) {
        hwy::Prefetch(in.rows + int64_t{in.ids[i + kAhead]} * in.row_floats + bit);
      }
      const auto weight = hn::Set(d64, static_cast<double>(in.weights[in.ids[i]]));
      const float* row = in.rows + int64_t{in.ids[i]} * in.row_floats + bit;
      const auto at = [&](int64_t v)
                          HWY_ATTR { return hn::PromoteTo(d64, hn::LoadU(d32, row + v * lanes)); };
      s0 = hn::MulAdd(weight, at(0), s0);
      s1 = hn::MulAdd(weight, at(1), s1);
      s2 = hn::MulAdd(weight, at(2), s2);
      s3 = hn::MulAdd(weight, at(3), s3);
      s4 = hn::MulAdd(weight, at(4), s4);
      s5 = hn::MulAdd(weight, at(5), s5);
      s6 = hn::MulAdd(weight, at(6), s6);
      s7 = hn::MulAdd(weight, at(7), s7);
    }
    double* out = sums + bit;
    for (const auto sum : {s0, s1, s2, s3, s4, s5, s6, s7}) {
      hn::StoreU(sum, d64, out);
      out += lanes;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace semshare
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace semshare {

HWY_EXPORT(SumWord);

void Signature(const SignatureArgs& args, WorkerPool& pool) {
  const float* projected = ArrayOf<const float>(args.projected);
  const int64_t* windows = ArrayOf<const int64_t>(args.windows);
  uint64_t* codes = ArrayOf<uint64_t>(args.codes);
  const int64_t words = args.bits / kWordBits;
  // One item is one word of one window's code: a long prompt is one window, and still shared out.
  pool.ParallelFor(args.window_count * words, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t window = item / words;
      const Rows rows{projected + item % words * kWordBits, args.bits,
                      ArrayOf<const float>(args.weights), ArrayOf<const uint32_t>(args.ids)};
      double sums[kWordBits];
      HWY_DYNAMIC_DISPATCH(SumWord)
      (rows, windows[2 * window], windows[2 * window + 1], sums);
      codes[item] = SignBits(sums);
    }
  });
}

}  // namespace semshare
#endif  // HWY_ONCE
