#include "kernels/cuda/cuda_raii.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/project.cuh"

namespace semshare {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = int64_t{1} << 16;

// c[i][j] -= bias[j]
__global__ void __launch_bounds__(kThreads)
    SubtractBiasKernel(float* c, const float* bias, int64_t elements, int64_t n) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < elements; i += step) {
    c[i] -= bias[i % n];
  }
}

}  // namespace

absl::Status LaunchProject(const ProjectArgs& args, CublasHandle& blas,
                           const KernelContext& context) {
  if (args.m == 0) return absl::OkStatus();
  float* const c = reinterpret_cast<float*>(args.c.address);
  const Product product{reinterpret_cast<const float*>(args.a.address),
                        reinterpret_cast<const float*>(args.b.address),
                        c,
                        args.m,
                        args.n,
                        args.k};
  SEMSHARE_RETURN_IF_ERROR(blas.Multiply(product));
  if (args.bias.bytes == 0) return absl::OkStatus();
  const int64_t elements = args.m * args.n;
  SubtractBiasKernel<<<GridBlocks(elements, kThreads, kMaxBlocks), kThreads, 0, context.stream>>>(
      c, reinterpret_cast<const float*>(args.bias.address), elements, args.n);
  SEMSHARE_RETURN_IF_LAUNCH_FAILED("SubtractBiasKernel");
  return absl::OkStatus();
}

}  // namespace semshare
