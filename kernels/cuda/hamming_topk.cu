#include <algorithm>

#include "kernels/cuda/cuda_raii.h"
#include "kernels/cuda/hamming.cuh"
#include "kernels/cuda/hamming_topk.cuh"

namespace semshare {
namespace {

constexpr int kThreads = kScanWarps * kWarpLanes;
constexpr int kListKeys = 64;  // kMaxTopK

// The smallest keys that a warp was offered, in order: lane l holds those of ranks l and l + 32.
// Every lane of the warp calls every function, always with the same k.
class WarpList {
 public:
  // Takes one key of each lane; kNoHammingKey is none.
  __device__ void Offer(uint64_t key, int k, int lane) {
    unsigned better = __ballot_sync(kAllLanes, key < bound_);
    while (better != 0) {
      const uint64_t next = __shfl_sync(kAllLanes, key, __ffs(static_cast<int>(better)) - 1);
      better &= better - 1;
      if (next < bound_) Insert(next, k, lane);  // the bound is the same in all lanes
    }
  }

  __device__ uint64_t low() const { return low_; }
  __device__ uint64_t high() const { return high_; }

 private:
  // REQUIRES: key < bound_, so its rank is below k.
  __device__ void Insert(uint64_t key, int k, int lane) {
    const int rank = __popc(__ballot_sync(kAllLanes, low_ < key)) +
                     __popc(__ballot_sync(kAllLanes, high_ < key));
    const uint64_t last_low = __shfl_sync(kAllLanes, low_, kWarpLanes - 1);
    const uint64_t before_low = __shfl_up_sync(kAllLanes, low_, 1);  // lane 0: never used
    const uint64_t up_high = __shfl_up_sync(kAllLanes, high_, 1);
    const uint64_t before_high = lane == 0 ? last_low : up_high;
    low_ = KeyAfterInsert(lane, rank, low_, before_low, key);
    high_ = KeyAfterInsert(lane + kWarpLanes, rank, high_, before_high, key);
    const int last = k - 1;
    bound_ = __shfl_sync(kAllLanes, last < kWarpLanes ? low_ : high_, last % kWarpLanes);
  }

  uint64_t bound_ = kNoHammingKey;  // the key of rank k - 1
  uint64_t low_ = kNoHammingKey;
  uint64_t high_ = kNoHammingKey;
};

struct ScanInput {
  const uint64_t* codes;
  const uint32_t* live;  // a word for 32 codes: the device is little-endian
  const uint64_t* queries;
  int64_t count;
  int64_t query_count;
  int32_t words;
  int32_t k;
};

// Joins the lists of a block's warps for one query; called by one warp.
__device__ WarpList JoinLists(const uint64_t (*lists)[kListKeys], int k, int lane) {
  WarpList joined;
  for (int warp = 0; warp < kScanWarps; ++warp) {
    joined.Offer(lists[warp][lane], k, lane);
    joined.Offer(lists[warp][lane + kWarpLanes], k, lane);
  }
  return joined;
}

// What is kept of a query while codes go by. kFast: codes of four words, aligned to 16 bytes.
template <bool kFast>
struct Query;

template <>
struct Query<true> {
  Code256 words = {};

  __device__ void Load(const uint64_t* from) { words = LoadCode256(from); }
};

template <>
struct Query<false> {
  const uint64_t* words = nullptr;

  __device__ void Load(const uint64_t* from) { words = from; }
};

// One batch of 32 codes, a code of each lane, for kQueries queries of which `queries` are there.
template <int kQueries>
__device__ void ScanBatch(const ScanInput& in, const Query<true> (&query)[kQueries], int queries,
                          int64_t index, bool alive, int lane, WarpList (&lists)[kQueries]) {
  Code256 code = {};
  if (alive) code = LoadCode256(in.codes + index * in.words);
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    uint64_t key = kNoHammingKey;
    if (alive && q < queries) key = HammingKey(Distance(code, query[q].words), index);
    lists[q].Offer(key, in.k, lane);
  }
}

template <int kQueries>
__device__ void ScanBatch(const ScanInput& in, const Query<false> (&query)[kQueries], int queries,
                          int64_t index, bool alive, int lane, WarpList (&lists)[kQueries]) {
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    uint64_t key = kNoHammingKey;
    if (alive && q < queries) {
      const uint64_t* const code = in.codes + index * in.words;
      key = HammingKey(Distance(code, query[q].words, in.words), index);
    }
    lists[q].Offer(key, in.k, lane);
  }
}

// Each warp looks at every (warps of the grid)-th batch of 32 codes, for kQueries queries; partial
// is uint64[query_count][gridDim.x][k].
template <bool kFast, int kQueries>
__global__ void __launch_bounds__(kThreads) ScanKernel(ScanInput in, uint64_t* partial) {
  __shared__ uint64_t lists[kQueries][kScanWarps][kListKeys];
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int64_t first_query = int64_t{blockIdx.y} * kQueries;
  const int64_t left = in.query_count - first_query;
  const int queries = left < kQueries ? static_cast<int>(left) : kQueries;
  const int64_t batches = CeilDiv(in.count, kWarpLanes);
  const int64_t step = int64_t{gridDim.x} * kScanWarps;
  Query<kFast> query[kQueries];
  WarpList own[kQueries];
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    if (q < queries) query[q].Load(in.queries + (first_query + q) * in.words);
  }
  for (int64_t batch = int64_t{blockIdx.x} * kScanWarps + warp; batch < batches; batch += step) {
    const uint32_t live = in.live[batch];
    if (live == 0) continue;  // the same for all lanes
    const int64_t index = batch * kWarpLanes + lane;
    const bool alive = ((live >> lane) & 1) != 0 && index < in.count;
    ScanBatch<kQueries>(in, query, queries, index, alive, lane, own);
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    lists[q][warp][lane] = own[q].low();
    lists[q][warp][lane + kWarpLanes] = own[q].high();
  }
  __syncthreads();
  if (warp >= queries) return;
  const WarpList joined = JoinLists(lists[warp], in.k, lane);
  uint64_t* const out = partial + ((first_query + warp) * gridDim.x + blockIdx.x) * in.k;
  if (lane < in.k) out[lane] = joined.low();
  if (lane + kWarpLanes < in.k) out[lane + kWarpLanes] = joined.high();
}

// A block per query: the k smallest of `keys` partial keys.
__global__ void __launch_bounds__(kThreads)
    MergeKernel(const uint64_t* partial, int64_t keys, int32_t k, int64_t* indices,
                int32_t* distances) {
  __shared__ uint64_t lists[kScanWarps][kListKeys];
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int64_t query = blockIdx.x;
  WarpList list;
  for (int64_t base = int64_t{warp} * kWarpLanes; base < keys; base += kThreads) {
    const int64_t i = base + lane;
    list.Offer(i < keys ? partial[query * keys + i] : kNoHammingKey, k, lane);
  }
  lists[warp][lane] = list.low();
  lists[warp][lane + kWarpLanes] = list.high();
  __syncthreads();
  if (warp != 0) return;
  const WarpList joined = JoinLists(lists, k, lane);
  for (int rank = lane; rank < k; rank += kWarpLanes) {
    const uint64_t key = rank < kWarpLanes ? joined.low() : joined.high();
    indices[query * k + rank] = HammingKeyIndex(key);
    distances[query * k + rank] = HammingKeyDistance(key);
  }
}

// Four queries share what a block loads, where there are that many.
template <bool kFast>
absl::Status Scan(const ScanInput& in, unsigned blocks, uint64_t* partial, cudaStream_t stream) {
  constexpr int kShared = 4;
  if (in.query_count >= kShared) {
    const dim3 grid(blocks, static_cast<unsigned>(CeilDiv(in.query_count, kShared)));
    ScanKernel<kFast, kShared><<<grid, kThreads, 0, stream>>>(in, partial);
    SEMSHARE_RETURN_IF_LAUNCH_FAILED("ScanKernel");
  } else {
    const dim3 grid(blocks, static_cast<unsigned>(in.query_count));
    ScanKernel<kFast, 1><<<grid, kThreads, 0, stream>>>(in, partial);
    SEMSHARE_RETURN_IF_LAUNCH_FAILED("ScanKernel");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status LaunchHammingTopK(const HammingTopKArgs& args, const KernelContext& context) {
  if (args.query_count == 0) return absl::OkStatus();
  uint64_t* const partial = reinterpret_cast<uint64_t*>(context.scratch);
  int64_t* const indices = reinterpret_cast<int64_t*>(args.indices.address);
  int32_t* const distances = reinterpret_cast<int32_t*>(args.distances.address);
  const bool fast =
      args.words == 4 && (args.codes.address | args.queries.address) % alignof(Vec16) == 0;
  // Without codes nothing is scanned, and the merge of nothing writes index -1.
  ScanGrid grid{0, std::min(args.query_count, kMaxGridX), 0};
  if (args.count > 0) {
    grid = MakeScanGrid(args.count, args.query_count, args.k, context.multiprocessors,
                        context.scratch_bytes);
  }
  for (int64_t begin = 0; begin < args.query_count; begin += grid.pass_queries) {
    const int64_t queries = std::min(grid.pass_queries, args.query_count - begin);
    const ScanInput in{reinterpret_cast<const uint64_t*>(args.codes.address),
                       reinterpret_cast<const uint32_t*>(args.live.address),
                       reinterpret_cast<const uint64_t*>(args.queries.address) + begin * args.words,
                       args.count,
                       queries,
                       args.words,
                       args.k};
    if (args.count > 0) {
      SEMSHARE_RETURN_IF_ERROR(fast ? Scan<true>(in, grid.blocks, partial, context.stream)
                                    : Scan<false>(in, grid.blocks, partial, context.stream));
    }
    MergeKernel<<<static_cast<unsigned>(queries), kThreads, 0, context.stream>>>(
        partial, int64_t{grid.blocks} * args.k, args.k, indices + begin * args.k,
        distances + begin * args.k);
    SEMSHARE_RETURN_IF_LAUNCH_FAILED("MergeKernel");
  }
  return absl::OkStatus();
}

}  // namespace semshare
