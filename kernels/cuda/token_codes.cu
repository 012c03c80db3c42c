#include <algorithm>

#include "kernels/cuda/cuda_raii.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/token_codes.cuh"

namespace semshare {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = int64_t{1} << 16;

struct RotateInput {
  const float* table;
  const uint32_t* ids;
  const int64_t* positions;
  const double* frequencies;
  int64_t vocab;
  int32_t width;
};

// rows[i] = rope(table[ids[i]], positions[i]), interleaved pairs; angles and their sines in fp64 as
// on the CPU, one rounding. A block per token.
__global__ void __launch_bounds__(kThreads)
    RotateKernel(RotateInput in, int64_t tokens, float* rows, int32_t* error) {
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    const uint32_t id = in.ids[token];
    const bool known = id < in.vocab;
    if (!known && threadIdx.x == 0) ReportError(error, DeviceError::kId);
    const double position = static_cast<double>(in.positions[token]);
    const float* const from = in.table + (known ? int64_t{id} * in.width : 0);
    float* const to = rows + token * in.width;
    for (int32_t j = static_cast<int32_t>(threadIdx.x); j < in.width / 2; j += kThreads) {
      double sine = 0;
      double cosine = 0;
      sincos(position * in.frequencies[j], &sine, &cosine);
      const double x = known ? from[2 * j] : 0;
      const double y = known ? from[2 * j + 1] : 0;
      to[2 * j] = static_cast<float>(x * cosine - y * sine);
      to[2 * j + 1] = static_cast<float>(x * sine + y * cosine);
    }
  }
}

// Bit b of the code is dots[b] > 0: a warp makes 32 of them. REQUIRES: halves * 32 dot products.
__global__ void __launch_bounds__(kThreads)
    SignsKernel(const float* dots, int64_t halves, uint32_t* codes) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  constexpr int kWarps = kThreads / kWarpLanes;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t half = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpLanes; half < halves;
       half += step) {
    const unsigned mask = __ballot_sync(kAllLanes, dots[half * kWarpLanes + lane] > 0);
    // Lower half of the word first: the device is little-endian.
    if (lane == 0) codes[half] = mask;
  }
}

}  // namespace

absl::Status LaunchTokenCodes(const TokenCodesArgs& args, const double* frequencies,
                              CublasHandle& blas, const KernelContext& context) {
  const int64_t tile = TokenTile(args.width, args.bits, context.scratch_bytes);
  float* const rows = reinterpret_cast<float*>(context.scratch);
  float* const dots = rows + tile * args.width;
  const uint32_t* const ids = reinterpret_cast<const uint32_t*>(args.ids.address);
  const int64_t* const positions = reinterpret_cast<const int64_t*>(args.positions.address);
  uint32_t* const codes = reinterpret_cast<uint32_t*>(args.codes.address);
  const int64_t halves = args.bits / kWarpLanes;  // of one code
  for (int64_t begin = 0; begin < args.count; begin += tile) {
    const int64_t tokens = std::min(tile, args.count - begin);
    const RotateInput in{reinterpret_cast<const float*>(args.table.address),
                         ids + begin,
                         positions + begin,
                         frequencies,
                         args.vocab,
                         args.width};
    RotateKernel<<<GridBlocks(tokens, 1, kMaxBlocks), kThreads, 0, context.stream>>>(
        in, tokens, rows, context.error);
    SEMSHARE_RETURN_IF_LAUNCH_FAILED("RotateKernel");
    SEMSHARE_RETURN_IF_ERROR(
        blas.Multiply({rows, reinterpret_cast<const float*>(args.matrix.address), dots, tokens,
                       args.bits, args.width}));
    SignsKernel<<<GridBlocks(tokens * halves, kThreads / kWarpLanes, kMaxBlocks), kThreads, 0,
                  context.stream>>>(dots, tokens * halves, codes + begin * halves);
    SEMSHARE_RETURN_IF_LAUNCH_FAILED("SignsKernel");
  }
  return absl::OkStatus();
}

}  // namespace semshare
