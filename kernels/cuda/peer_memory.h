// CUDA IPC: memory of another process on the same GPU.
//
// Thread-safe: a function.
#ifndef SEMSHARE_KERNELS_CUDA_PEER_MEMORY_H_
#define SEMSHARE_KERNELS_CUDA_PEER_MEMORY_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/span_registry.h"

namespace semshare {

// Backend::OpenPeerMemory on `device`. The mapping is known to `registry` as device memory for as
// long as it lasts. REQUIRES: the device is current, and the handle's.
absl::StatusOr<std::unique_ptr<PeerMemory>> OpenCudaPeerMemory(
    int device, const PeerMemoryHandle& handle, std::shared_ptr<SpanRegistry> registry);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_PEER_MEMORY_H_
