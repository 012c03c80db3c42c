// Large blocks of host memory, touched when they are taken: first touch costs far more than a copy.
// Thread-safe: pure function. The Buffer owns the memory.
#ifndef SEMSHARE_KERNELS_CPU_MEMORY_H_
#define SEMSHARE_KERNELS_CPU_MEMORY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace semshare {

// Zeroed memory whose span has the given kind, aligned to 256 bytes (to 2 MiB from 2 MiB up, with
// huge pages where the system has them). INVALID_ARGUMENT unless bytes >= 1; RESOURCE_EXHAUSTED if
// the system will not give that much.
absl::StatusOr<Buffer> AllocateHostMemory(MemoryKind kind, int64_t bytes);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_MEMORY_H_
