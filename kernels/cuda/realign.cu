#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_raii.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/realign.cuh"
#include "kernels/cuda/realign_row.h"
#include "kernels/cuda/vec.cuh"

namespace semshare {
namespace {

constexpr int kWarps = 8;
// Of a multiprocessor, at least: 24 warps with four 16-byte loads each are enough to fill the
// memory of an H100, and the 80 registers that this leaves a thread are enough to spill none.
constexpr int kBlocks = 3;

// A warp per row: its place is worked out once for all heads, a row of 2 KiB keeps four 16-byte
// loads of each lane in flight, and neighbouring warps touch neighbouring rows of one plane.
template <class Element, Codec kCodec>
__global__ void __launch_bounds__(kWarps* kWarpLanes, kBlocks)
    RealignKernel(const __grid_constant__ RealignLaunch launch, int32_t* error) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpLanes;
  if (row >= launch.row_count) return;
  const bool good = RealignOneRow<DeviceAccess, Element, kCodec>(
      launch, static_cast<int>(blockIdx.y), row, lane, kWarpLanes);
  if (!good && lane == 0) ReportError(error, DeviceError::kRow);
}

template <class Element, Codec kCodec>
absl::Status Run(const RealignLaunch& launch, const KernelContext& context) {
  // At most 2^24 rows (kMaxRealignRows) and 64 planes: far below the limits of a grid.
  const dim3 grid(static_cast<unsigned>(CeilDiv(launch.row_count, kWarps)),
                  static_cast<unsigned>(launch.plane_count));
  RealignKernel<Element, kCodec>
      <<<grid, kWarps * kWarpLanes, 0, context.stream>>>(launch, context.error);
  SEMSHARE_RETURN_IF_LAUNCH_FAILED("RealignKernel");
  return absl::OkStatus();
}

template <class Element>
absl::Status RunCodec(const RealignLaunch& launch, Codec codec, const KernelContext& context) {
  switch (codec) {
    case Codec::kRaw:
      return Run<Element, Codec::kRaw>(launch, context);
    case Codec::kFp8E4m3:
      return Run<Element, Codec::kFp8E4m3>(launch, context);
    case Codec::kInt8:
      return Run<Element, Codec::kInt8>(launch, context);
  }
  return absl::UnimplementedError(absl::StrCat("codec ", static_cast<int>(codec),
                                               " has no kernel; supported: raw, fp8_e4m3, int8"));
}

}  // namespace

absl::Status LaunchRealign(const RealignLaunch& launch, Dtype dtype, Codec codec,
                           const KernelContext& context) {
  if (launch.row_count == 0 || launch.plane_count == 0) return absl::OkStatus();
  switch (dtype) {
    case Dtype::kFloat32:
      return RunCodec<Float32Element>(launch, codec, context);
    case Dtype::kFloat16:
      return RunCodec<Float16Element>(launch, codec, context);
    case Dtype::kBfloat16:
      return RunCodec<Bfloat16Element>(launch, codec, context);
  }
  return absl::UnimplementedError(absl::StrCat(
      "dtype ", static_cast<int>(dtype), " has no kernel; supported: float32, float16, bfloat16"));
}

}  // namespace semshare
