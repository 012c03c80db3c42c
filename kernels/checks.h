// Argument checks that every backend makes before it queues work, and the limits they enforce.
//
// A check reads the contents of tables (rows, ids, windows) only where their span is host memory:
// a backend whose "device" memory the host can read passes spans that it has resolved to host
// memory first, and so checks everything. Nothing is ever written.
//
// Thread-safe: pure functions. All return OK or INVALID_ARGUMENT naming the field.
#ifndef SEMSHARE_KERNELS_CHECKS_H_
#define SEMSHARE_KERNELS_CHECKS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"

namespace semshare {

inline constexpr int32_t kMaxHeads = 4096;
inline constexpr int32_t kMaxWidth = 65536;                   // elements of one head
inline constexpr int64_t kMaxRealignRows = int64_t{1} << 24;  // rows of one operation
inline constexpr int64_t kMaxRealignBatch = int64_t{1} << 16;
inline constexpr int64_t kMaxProjectDim = int64_t{1} << 30;  // m, n and k each
inline constexpr int32_t kMaxCodeBits = 4096;
inline constexpr int32_t kMaxTopK = 64;
inline constexpr int64_t kMaxChecksumSpans = int64_t{1} << 20;

// OK if a known codec, dtype and pairing and at most kMaxWidth elements are asked for: what the
// kernels of this repository have. Otherwise UNIMPLEMENTED, naming the value and the supported set.
absl::Status KernelsSupportRealign(const RealignArgs& args);

// That `memory` is host memory of at least a byte: what RegisterHost takes.
absl::Status CheckRegisterHost(const MemorySpan& memory);
absl::Status CheckCopy(const MemorySpan& destination, const MemorySpan& source);
// REQUIRES: KernelsSupportRealign(args) is OK.
absl::Status CheckRealign(const RealignArgs& args);
// KernelsSupportRealign and CheckRealign of every item, and the batch's own limit. The rows of
// items that share a table are looked at once. An error of a batch of several names its item.
absl::Status CheckRealignBatch(absl::Span<const RealignArgs> batch);
absl::Status CheckProject(const ProjectArgs& args);
absl::Status CheckSignature(const SignatureArgs& args);
absl::Status CheckHammingTopK(const HammingTopKArgs& args);
absl::Status CheckTokenCodes(const TokenCodesArgs& args);
absl::Status CheckNearestCode(const NearestCodeArgs& args);
absl::Status CheckChecksum(absl::Span<const MemorySpan> spans, const MemorySpan& digests);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CHECKS_H_
