#include "kernels/cpu/signature.h"

#include "kernels/cpu/operations.h"

namespace semshare {

void Signature(const SignatureArgs& args, WorkerPool& pool) {
  const float* projected = ArrayOf<const float>(args.projected);
  const float* weights = ArrayOf<const float>(args.weights);
  const uint32_t* ids = ArrayOf<const uint32_t>(args.ids);
  const int64_t* windows = ArrayOf<const int64_t>(args.windows);
  uint64_t* codes = ArrayOf<uint64_t>(args.codes);
  const int64_t words = args.bits / 64;
  // One item is one word of one window's code: a long prompt is one window, and still shared out.
  pool.ParallelFor(args.window_count * words, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t window = item / words;
      const int64_t first_bit = item % words * 64;
      double sums[64] = {};
      for (int64_t i = windows[2 * window]; i < windows[2 * window + 1]; ++i) {
        const double weight = weights[ids[i]];
        const float* row = projected + int64_t{ids[i]} * args.bits + first_bit;
        for (int b = 0; b < 64; ++b) sums[b] += weight * row[b];
      }
      codes[item] = SignBits(sums);
    }
  });
}

}  // namespace semshare
