// What a backend checks before it lets anybody work on memory of another process (PeerMemory), and
// how it says no. The texts travel in 160 bytes (proto/shm_wire.h), so they are short.
//
// Thread-safe: pure functions.
#ifndef SEMSHARE_KERNELS_PEER_MEMORY_H_
#define SEMSHARE_KERNELS_PEER_MEMORY_H_

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/backend.h"

namespace semshare {

// FAILED_PRECONDITION naming both, as `nvidia-smi -L` does, unless the devices are one.
absl::Status CheckPeerDevice(const std::array<char, 16>& own, const std::array<char, 16>& peers);

// FAILED_PRECONDITION: the driver refused to open the peer's handle with `error`.
absl::Status PeerOpenError(absl::string_view error);

// The memory that `handle` names. `opened`: the address that opening it gave; `mapping`: the range
// around it that is mapped, by the driver's word. INVALID_ARGUMENT if it is not within that.
absl::StatusOr<MemorySpan> PeerSpan(const PeerMemoryHandle& handle, uintptr_t opened,
                                    const MemorySpan& mapping);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_PEER_MEMORY_H_
