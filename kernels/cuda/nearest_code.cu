#include <type_traits>

#include "kernels/cuda/cuda_raii.h"
#include "kernels/cuda/hamming.cuh"
#include "kernels/cuda/nearest_code.cuh"

namespace semshare {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int64_t kMaxBlocks = int64_t{1} << 16;

struct NearestInput {
  const uint64_t* queries;
  const uint64_t* codes;
  const int64_t* windows;
  int64_t query_count;
  int64_t count;
  int32_t words;
};

// The smallest key of the window's codes that this lane looks at. kFast: codes of four words,
// aligned to 16 bytes.
template <bool kFast>
__device__ uint64_t NearestOfLane(const NearestInput& in, int64_t query, int64_t begin,
                                  int64_t end) {
  const uint64_t* const own = in.queries + query * in.words;
  std::conditional_t<kFast, Code256, int> loaded{};
  if constexpr (kFast) loaded = LoadCode256(own);
  uint64_t best = kNoHammingKey;
  for (int64_t index = begin; index < end; index += kWarpLanes) {
    const uint64_t* const code = in.codes + index * in.words;
    int32_t distance = 0;
    if constexpr (kFast) {
      distance = Distance(loaded, LoadCode256(code));
    } else {
      distance = Distance(own, code, in.words);
    }
    const uint64_t key = HammingKey(distance, index);
    if (key < best) best = key;
  }
  return best;
}

// A warp per query.
template <bool kFast>
__global__ void __launch_bounds__(kThreads)
    NearestCodeKernel(NearestInput in, int64_t* indices, int32_t* distances, int32_t* error) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t query = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpLanes;
       query < in.query_count; query += step) {
    const int64_t begin = in.windows[2 * query];
    const int64_t end = in.windows[2 * query + 1];
    const bool good = begin >= 0 && begin <= end && end <= in.count;
    if (!good && lane == 0) ReportError(error, DeviceError::kWindow);
    uint64_t best = good ? NearestOfLane<kFast>(in, query, begin + lane, end) : kNoHammingKey;
    for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
      const uint64_t other = __shfl_xor_sync(kAllLanes, best, offset);
      if (other < best) best = other;
    }
    if (lane == 0) {
      indices[query] = HammingKeyIndex(best);
      distances[query] = HammingKeyDistance(best);
    }
  }
}

}  // namespace

absl::Status LaunchNearestCode(const NearestCodeArgs& args, const KernelContext& context) {
  if (args.query_count == 0) return absl::OkStatus();
  const NearestInput in{reinterpret_cast<const uint64_t*>(args.queries.address),
                        reinterpret_cast<const uint64_t*>(args.codes.address),
                        reinterpret_cast<const int64_t*>(args.windows.address),
                        args.query_count,
                        args.count,
                        args.words};
  int64_t* const indices = reinterpret_cast<int64_t*>(args.indices.address);
  int32_t* const distances = reinterpret_cast<int32_t*>(args.distances.address);
  const unsigned blocks = GridBlocks(args.query_count, kWarps, kMaxBlocks);
  if (args.words == 4 && (args.codes.address | args.queries.address) % alignof(Vec16) == 0) {
    NearestCodeKernel<true>
        <<<blocks, kThreads, 0, context.stream>>>(in, indices, distances, context.error);
    SEMSHARE_RETURN_IF_LAUNCH_FAILED("NearestCodeKernel");
  } else {
    NearestCodeKernel<false>
        <<<blocks, kThreads, 0, context.stream>>>(in, indices, distances, context.error);
    SEMSHARE_RETURN_IF_LAUNCH_FAILED("NearestCodeKernel");
  }
  return absl::OkStatus();
}

}  // namespace semshare
