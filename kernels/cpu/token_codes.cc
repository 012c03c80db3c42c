#include "kernels/cpu/token_codes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cpu/operations.h"
#include "kernels/cpu/project.h"
#include "kernels/cpu/signature.h"

namespace semshare {
namespace {

constexpr int64_t kTokensPerTile = 64;

// out = rope(row, position), interleaved pairs.
void RotateEmbedding(const float* row, int64_t position, const std::vector<double>& frequencies,
                     float* out) {
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const double angle = static_cast<double>(position) * frequencies[j];
    const double cosine = std::cos(angle);
    const double sine = std::sin(angle);
    const double x = row[2 * j];
    const double y = row[2 * j + 1];
    out[2 * j] = static_cast<float>(x * cosine - y * sine);
    out[2 * j + 1] = static_cast<float>(x * sine + y * cosine);
  }
}

}  // namespace

void TokenCodes(const TokenCodesArgs& args, WorkerPool& pool) {
  const float* table = ArrayOf<const float>(args.table);
  const float* matrix = ArrayOf<const float>(args.matrix);
  const uint32_t* ids = ArrayOf<const uint32_t>(args.ids);
  const int64_t* positions = ArrayOf<const int64_t>(args.positions);
  uint64_t* codes = ArrayOf<uint64_t>(args.codes);
  const int64_t width = args.width;
  const int64_t words = args.bits / 64;
  std::vector<double> frequencies(static_cast<size_t>(width / 2));
  for (size_t j = 0; j < frequencies.size(); ++j) {
    frequencies[j] = std::pow(args.theta, -2.0 * static_cast<double>(j) / args.width);
  }
  pool.ParallelFor(args.count, kTokensPerTile, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>(kTokensPerTile * width));
    std::vector<float> dots(static_cast<size_t>(kTokensPerTile * args.bits));
    for (int64_t tile = begin; tile < end; tile += kTokensPerTile) {
      const int64_t tokens = std::min(kTokensPerTile, end - tile);
      for (int64_t i = 0; i < tokens; ++i) {
        RotateEmbedding(table + int64_t{ids[tile + i]} * width, positions[tile + i], frequencies,
                        rows.data() + i * width);
      }
      MultiplyRows(rows.data(), matrix, dots.data(), tokens, args.bits, width);
      for (int64_t word = 0; word < tokens * words; ++word) {
        codes[tile * words + word] = SignBits(dots.data() + word * 64);
      }
    }
  });
}

}  // namespace semshare
