#include "kernels/cpu/signature.h"

#include <algorithm>

#include "hwy/cache_control.h"
#include "kernels/cpu/operations.h"

// This file is compiled once per instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/signature.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef SEMSHARE_KERNELS_CPU_SIGNATURE_ONCE
#define SEMSHARE_KERNELS_CPU_SIGNATURE_ONCE
namespace semshare {
namespace {

// Rows that are summed into one word of a code: `rows` + id * stride has its 64 values.
struct WordSum {
  const float* rows;
  int64_t stride;
  const float* weights;
  const uint32_t* ids;
  int64_t count;
};

}  // namespace
}  // namespace semshare
#endif  // SEMSHARE_KERNELS_CPU_SIGNATURE_ONCE

HWY_BEFORE_NAMESPACE();
namespace semshare {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Adds to the sums, in the order of the ids. The product of two floats is exact in a double, so
// that a fused multiply-add rounds as the two operations do: every instruction set gives the same
// sums.
void SumWord(const WordSum& word, double* HWY_RESTRICT sums) {
  constexpr int64_t kAhead = 16;  // rows of a large table are seldom cached
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> f;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t b = 0; b < 64; b += 8 * lanes) {
    auto sum0 = hn::LoadU(d, sums + b + 0 * lanes);
    auto sum1 = hn::LoadU(d, sums + b + 1 * lanes);
    auto sum2 = hn::LoadU(d, sums + b + 2 * lanes);
    auto sum3 = hn::LoadU(d, sums + b + 3 * lanes);
    auto sum4 = hn::LoadU(d, sums + b + 4 * lanes);
    auto sum5 = hn::LoadU(d, sums + b + 5 * lanes);
    auto sum6 = hn::LoadU(d, sums + b + 6 * lanes);
    auto sum7 = hn::LoadU(d, sums + b + 7 * lanes);
    for (int64_t i = 0; i < word.count; ++i) {
      const float* const next =
          word.rows + int64_t{word.ids[std::min(i + kAhead, word.count - 1)]} * word.stride + b;
      for (int64_t line = 0; line < 8 * lanes; line += 16) hwy::Prefetch(next + line);
      const auto weight = hn::Set(d, static_cast<double>(word.weights[word.ids[i]]));
      const float* const row = word.rows + int64_t{word.ids[i]} * word.stride + b;
      const auto value = [&](int64_t at) {
        return hn::PromoteTo(d, hn::LoadU(f, row + at * lanes));
      };
      sum0 = hn::MulAdd(weight, value(0), sum0);
      sum1 = hn::MulAdd(weight, value(1), sum1);
      sum2 = hn::MulAdd(weight, value(2), sum2);
      sum3 = hn::MulAdd(weight, value(3), sum3);
      sum4 = hn::MulAdd(weight, value(4), sum4);
      sum5 = hn::MulAdd(weight, value(5), sum5);
      sum6 = hn::MulAdd(weight, value(6), sum6);
      sum7 = hn::MulAdd(weight, value(7), sum7);
    }
    hn::StoreU(sum0, d, sums + b);
    hn::StoreU(sum1, d, sums + b + lanes);
    hn::StoreU(sum2, d, sums + b + 2 * lanes);
    hn::StoreU(sum3, d, sums + b + 3 * lanes);
    hn::StoreU(sum4, d, sums + b + 4 * lanes);
    hn::StoreU(sum5, d, sums + b + 5 * lanes);
    hn::StoreU(sum6, d, sums + b + 6 * lanes);
    hn::StoreU(sum7, d, sums + b + 7 * lanes);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace semshare
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace semshare {
namespace {

HWY_EXPORT(SumWord);

// Whether the windows after the first are the parts of the first, one after the other: a prompt and
// its windows.
bool IsWholeAndParts(const int64_t* windows, int64_t count) {
  if (count < 2 || windows[2] != windows[0] || windows[2 * count - 1] != windows[1]) return false;
  for (int64_t w = 2; w < count; ++w) {
    if (windows[2 * w] != windows[2 * w - 1]) return false;
  }
  return true;
}

}  // namespace

void Signature(const SignatureArgs& args, WorkerPool& pool) {
  const float* projected = ArrayOf<const float>(args.projected);
  const float* weights = ArrayOf<const float>(args.weights);
  const uint32_t* ids = ArrayOf<const uint32_t>(args.ids);
  const int64_t* windows = ArrayOf<const int64_t>(args.windows);
  uint64_t* codes = ArrayOf<uint64_t>(args.codes);
  const int64_t words = args.bits / 64;
  const auto add = [&](int64_t window, int64_t word, double* sums) {
    const int64_t first = windows[2 * window];
    const WordSum rows{projected + word * 64, args.bits, weights, ids + first,
                       windows[2 * window + 1] - first};
    HWY_DYNAMIC_DISPATCH(SumWord)(rows, sums);
  };
  if (IsWholeAndParts(windows, args.window_count)) {
    // The whole is summed a part at a time, while the part's rows are cached.
    pool.ParallelFor(words, 1, [&](int64_t begin, int64_t end) {
      for (int64_t word = begin; word < end; ++word) {
        double whole[64] = {};
        for (int64_t window = 1; window < args.window_count; ++window) {
          double sums[64] = {};
          add(window, word, sums);
          codes[window * words + word] = SignBits(sums);
          add(window, word, whole);
        }
        codes[word] = SignBits(whole);
      }
    });
    return;
  }
  // One item is one word of one window's code: a long prompt is one window, and still shared out.
  pool.ParallelFor(args.window_count * words, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      double sums[64] = {};
      add(item / words, item % words, sums);
      codes[item] = SignBits(sums);
    }
  });
}

}  // namespace semshare
#endif  // HWY_ONCE
