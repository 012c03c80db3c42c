#include "kernels/cuda/copy.h"

#include <algorithm>
#include <cstring>

namespace semshare {
namespace {

void* Address(const MemorySpan& span) { return reinterpret_cast<void*>(span.address); }

absl::Status CopyDirectly(CudaLane& lane, const MemorySpan& destination, const MemorySpan& source) {
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(Address(destination), Address(source),
                                                static_cast<size_t>(source.bytes),
                                                cudaMemcpyDefault, lane.stream()));
  return absl::OkStatus();
}

// From memory that the device does not reach: the host fills pinned buffers.
absl::Status CopyIn(CudaLane& lane, const MemorySpan& destination, const MemorySpan& source) {
  for (int64_t at = 0; at < source.bytes; at += lane.staging_bytes()) {
    const int64_t bytes = std::min(lane.staging_bytes(), source.bytes - at);
    StagingBuffer& buffer = lane.NextBuffer();
    SEMSHARE_RETURN_IF_ERROR(buffer.WaitForUse());
    std::memcpy(buffer.host(), source.host() + at, static_cast<size_t>(bytes));
    SEMSHARE_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(Address(destination.Sub(at, bytes)),
                                                  buffer.host(), static_cast<size_t>(bytes),
                                                  cudaMemcpyHostToDevice, lane.stream()));
    SEMSHARE_RETURN_IF_ERROR(buffer.MarkUsed(lane.stream()));
  }
  return absl::OkStatus();
}

// To memory that the device does not reach: the stream fills a pinned buffer and a host function
// empties it, in turn. Nobody waits.
absl::Status CopyOut(CudaLane& lane, const MemorySpan& destination, const MemorySpan& source) {
  StagingBuffer& buffer = lane.NextBuffer();
  for (int64_t at = 0; at < source.bytes; at += lane.staging_bytes()) {
    const int64_t bytes = std::min(lane.staging_bytes(), source.bytes - at);
    SEMSHARE_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(buffer.host(), Address(source.Sub(at, bytes)),
                                                  static_cast<size_t>(bytes),
                                                  cudaMemcpyDeviceToHost, lane.stream()));
    SEMSHARE_RETURN_IF_ERROR(buffer.MarkUsed(lane.stream()));
    SEMSHARE_RETURN_IF_ERROR(
        lane.RunOnHost([to = destination.host() + at, from = buffer.host(), bytes] {
          std::memcpy(to, from, static_cast<size_t>(bytes));
        }));
    SEMSHARE_RETURN_IF_ERROR(buffer.MarkUsed(lane.stream()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status QueueCopy(CudaLane& lane, const MemorySpan& destination, const MemorySpan& source,
                       PinnedEnds pinned) {
  if (source.bytes == 0) return absl::OkStatus();
  const bool to_device = destination.kind == MemoryKind::kDevice;
  const bool from_device = source.kind == MemoryKind::kDevice;
  if (!to_device && !from_device) {
    // CUDA's own copy between host addresses does not wait for the stream's work before it.
    return lane.RunOnHost([to = destination.host(), from = source.host(), bytes = source.bytes] {
      std::memcpy(to, from, static_cast<size_t>(bytes));
    });
  }
  if (!from_device && !pinned.source) return CopyIn(lane, destination, source);
  if (!to_device && !pinned.destination) return CopyOut(lane, destination, source);
  return CopyDirectly(lane, destination, source);
}

}  // namespace semshare
