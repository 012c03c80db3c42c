#include "kernels/cpu/project.h"

#include <cblas.h>

#include <algorithm>

#include "kernels/cpu/operations.h"

namespace semshare {
namespace {

// Rows of one product: keeps OpenBLAS's 32-bit sizes far away and gives the pool pieces to share.
constexpr int64_t kRowsPerProduct = 4096;
constexpr int64_t kRowsPerPiece = 64;

}  // namespace

void MultiplyRows(const float* a, const float* b, float* c, int64_t m, int64_t n, int64_t k) {
  static const bool single_threaded = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(single_threaded);
  for (int64_t row = 0; row < m; row += kRowsPerProduct) {
    const int64_t rows = std::min(kRowsPerProduct, m - row);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<blasint>(rows),
                static_cast<blasint>(n), static_cast<blasint>(k), 1.0F, a + row * k,
                static_cast<blasint>(k), b, static_cast<blasint>(n), 0.0F, c + row * n,
                static_cast<blasint>(n));
  }
}

void Project(const ProjectArgs& args, WorkerPool& pool) {
  const float* a = ArrayOf<const float>(args.a);
  const float* b = ArrayOf<const float>(args.b);
  const float* bias = args.bias.bytes == 0 ? nullptr : ArrayOf<const float>(args.bias);
  float* c = ArrayOf<float>(args.c);
  pool.ParallelFor(args.m, kRowsPerPiece, [&](int64_t begin, int64_t end) {
    MultiplyRows(a + begin * args.k, b, c + begin * args.n, end - begin, args.n, args.k);
    if (bias == nullptr) return;
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t j = 0; j < args.n; ++j) c[row * args.n + j] -= bias[j];
    }
  });
}

}  // namespace semshare
