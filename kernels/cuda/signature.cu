#include "kernels/cuda/cuda_raii.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/signature.cuh"

namespace semshare {
namespace {

constexpr int kBits = 64;   // of one word
constexpr int kParts = 16;  // of a window's ids, each summed by other threads
constexpr int64_t kMaxBlocks = int64_t{1} << 16;

struct SignatureInput {
  const float* projected;
  const float* weights;
  const uint32_t* ids;
  const int64_t* windows;
  int64_t vocab;
  int64_t count;
  int32_t bits;
};

// The sum over every kParts-th id of a window from `part` on, for one bit. In fp64, where the
// products of two fp32 numbers are exact.
__device__ double PartialSum(const SignatureInput& in, int64_t begin, int64_t end, int bit,
                             int32_t* error) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = begin; i < end; i += kParts) {
    const uint32_t id = in.ids[i];
    if (id >= in.vocab) {
      ReportError(error, DeviceError::kId);
      continue;
    }
    sum += double{in.weights[id]} * in.projected[int64_t{id} * in.bits + bit];
  }
  return sum;
}

// A block per word of a code: thread (bit, part). The parts are added in their order, so a
// signature does not depend on the grid.
__global__ void __launch_bounds__(kBits* kParts)
    SignatureKernel(SignatureInput in, int64_t items, uint32_t* codes, int32_t* error) {
  __shared__ double sums[kParts][kBits];
  const int bit = static_cast<int>(threadIdx.x) % kBits;
  const int part = static_cast<int>(threadIdx.x) / kBits;
  const int64_t words = in.bits / kBits;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t window = item / words;
    const int64_t begin = in.windows[2 * window];
    const int64_t end = in.windows[2 * window + 1];
    const bool good = begin >= 0 && begin <= end && end <= in.count;
    if (!good && threadIdx.x == 0) ReportError(error, DeviceError::kWindow);
    const int word_bit = static_cast<int>(item % words) * kBits + bit;
    sums[part][bit] = good ? PartialSum(in, begin + part, end, word_bit, error) : 0;
    __syncthreads();
    if (part == 0) {  // two whole warps
      double sum = 0;
      for (int p = 0; p < kParts; ++p) sum += sums[p][bit];
      const unsigned mask = __ballot_sync(kAllLanes, sum > 0);
      // Lower half of the word first: the device is little-endian.
      if (bit % kWarpLanes == 0) codes[2 * item + bit / kWarpLanes] = mask;
    }
    __syncthreads();  // before the sums of the next item
  }
}

}  // namespace

absl::Status LaunchSignature(const SignatureArgs& args, const KernelContext& context) {
  const int64_t items = args.window_count * (args.bits / kBits);
  if (items == 0) return absl::OkStatus();
  const SignatureInput in{reinterpret_cast<const float*>(args.projected.address),
                          reinterpret_cast<const float*>(args.weights.address),
                          reinterpret_cast<const uint32_t*>(args.ids.address),
                          reinterpret_cast<const int64_t*>(args.windows.address),
                          args.vocab,
                          args.count,
                          args.bits};
  SignatureKernel<<<GridBlocks(items, 1, kMaxBlocks), kBits * kParts, 0, context.stream>>>(
      in, items, reinterpret_cast<uint32_t*>(args.codes.address), context.error);
  SEMSHARE_RETURN_IF_LAUNCH_FAILED("SignatureKernel");
  return absl::OkStatus();
}

}  // namespace semshare
