// XXH3-64 of spans on a lane.
//
// The host's hash is the only one that is right, and XXH3 is made for processors: pieces of device
// memory are copied into a pinned buffer, and a host function of the stream hashes them, in turn.
// So nothing waits, and the digests are the CPU backend's by construction; the price is a copy over
// the bus, which storage pays anyway where it writes what it hashes.
//
// Not thread-safe: works on the caller's lane.
#ifndef SEMSHARE_KERNELS_CUDA_CHECKSUM_H_
#define SEMSHARE_KERNELS_CUDA_CHECKSUM_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_lane.h"

namespace semshare {

// Queues digests[i] = XXH3-64 of spans[i], seed 0. REQUIRES: CheckChecksum is OK.
absl::Status QueueChecksum(CudaLane& lane, absl::Span<const MemorySpan> spans, uint64_t* digests);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_CHECKSUM_H_
