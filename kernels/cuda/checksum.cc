#include "kernels/cuda/checksum.h"

#include <xxhash.h>

#include <algorithm>
#include <memory>

namespace semshare {
namespace {

struct FreeState {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

// A span's digest so far; the functions of one span run in order.
std::shared_ptr<XXH3_state_t> NewState() {
  std::shared_ptr<XXH3_state_t> state(XXH3_createState(), FreeState());
  SEMSHARE_CHECK(state != nullptr);
  XXH3_64bits_reset(state.get());
  return state;
}

absl::Status QueueDevice(CudaLane& lane, const MemorySpan& span, uint64_t* digest) {
  const std::shared_ptr<XXH3_state_t> state = NewState();
  StagingBuffer& buffer = lane.NextBuffer();
  for (int64_t at = 0; at < span.bytes; at += lane.staging_bytes()) {
    const int64_t bytes = std::min(lane.staging_bytes(), span.bytes - at);
    SEMSHARE_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(
        buffer.host(), reinterpret_cast<const void*>(span.address + static_cast<uintptr_t>(at)),
        static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, lane.stream()));
    SEMSHARE_RETURN_IF_ERROR(buffer.MarkUsed(lane.stream()));
    SEMSHARE_RETURN_IF_ERROR(lane.RunOnHost([state, from = buffer.host(), bytes] {
      XXH3_64bits_update(state.get(), from, static_cast<size_t>(bytes));
    }));
    SEMSHARE_RETURN_IF_ERROR(buffer.MarkUsed(lane.stream()));
  }
  return lane.RunOnHost([state, digest] { *digest = XXH3_64bits_digest(state.get()); });
}

}  // namespace

absl::Status QueueChecksum(CudaLane& lane, absl::Span<const MemorySpan> spans, uint64_t* digests) {
  for (size_t i = 0; i < spans.size(); ++i) {
    const MemorySpan span = spans[i];
    if (span.kind == MemoryKind::kDevice && span.bytes > 0) {
      SEMSHARE_RETURN_IF_ERROR(QueueDevice(lane, span, digests + i));
      continue;
    }
    SEMSHARE_RETURN_IF_ERROR(lane.RunOnHost([span, digest = digests + i] {
      *digest =
          XXH3_64bits(reinterpret_cast<const void*>(span.address), static_cast<size_t>(span.bytes));
    }));
  }
  return absl::OkStatus();
}

}  // namespace semshare
