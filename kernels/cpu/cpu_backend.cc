// The CPU backend: every operation runs in the calling thread, helped by the pool, before Enqueue*
// returns. Its device memory is plain memory, but callers must not count on that.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/base/status_macros.h"
#include "kernels/checks.h"
#include "kernels/cpu/checksum.h"
#include "kernels/cpu/copy.h"
#include "kernels/cpu/hamming.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/operations.h"
#include "kernels/cpu/project.h"
#include "kernels/cpu/realign.h"
#include "kernels/cpu/signature.h"
#include "kernels/cpu/token_codes.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/lane_pool.h"

namespace semshare {
namespace {

// Device memory of this backend is host memory under another name.
MemorySpan AsHost(MemorySpan span) {
  span.kind = MemoryKind::kHost;
  return span;
}

// Nothing is queued, so a lane is only a token.
class CpuLane final : public Lane::Impl {};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuBackendOptions& options)
      : info_{"cpu", absl::StrCat("CPU, threads per operation: ", options.threads)},
        pool_(options.threads),
        lanes_(std::make_shared<LanePool>(MakeLanes(options.lanes))) {}

  const BackendInfo& info() const override { return info_; }

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes) override {
    return AllocateHostMemory(kind, bytes);
  }

  // The CPU reaches all of it already.
  absl::StatusOr<Buffer> RegisterHost(MemorySpan memory) override {
    SEMSHARE_RETURN_IF_ERROR(CheckRegisterHost(memory));
    return Buffer(memory, nullptr);
  }

  absl::StatusOr<Lane> AcquireLane(absl::Duration timeout) override {
    return lanes_->Acquire(timeout);
  }

  absl::Status SupportsRealign(const RealignArgs& args) const override {
    return KernelsSupportRealign(args);
  }

  absl::Status EnqueueCopy(Lane&, MemorySpan destination, MemorySpan source) override {
    SEMSHARE_RETURN_IF_ERROR(CheckCopy(AsHost(destination), AsHost(source)));
    Copy(AsHost(destination), AsHost(source), pool_);
    return absl::OkStatus();
  }

  using Backend::EnqueueRealign;
  absl::Status EnqueueRealign(Lane&, absl::Span<const RealignArgs> batch) override {
    std::vector<RealignArgs> resolved;
    resolved.reserve(batch.size());
    for (const RealignArgs& args : batch) resolved.push_back(Resolve(args, AsHost));
    SEMSHARE_RETURN_IF_ERROR(CheckRealignBatch(resolved));
    for (const RealignArgs& args : resolved) Realign(args, pool_);
    return absl::OkStatus();
  }

  absl::Status EnqueueProject(Lane&, const ProjectArgs& args) override {
    const ProjectArgs resolved = Resolve(args, AsHost);
    SEMSHARE_RETURN_IF_ERROR(CheckProject(resolved));
    Project(resolved, pool_);
    return absl::OkStatus();
  }

  absl::Status EnqueueSignature(Lane&, const SignatureArgs& args) override {
    const SignatureArgs resolved = Resolve(args, AsHost);
    SEMSHARE_RETURN_IF_ERROR(CheckSignature(resolved));
    Signature(resolved, pool_);
    return absl::OkStatus();
  }

  absl::Status EnqueueHammingTopK(Lane&, const HammingTopKArgs& args) override {
    const HammingTopKArgs resolved = Resolve(args, AsHost);
    SEMSHARE_RETURN_IF_ERROR(CheckHammingTopK(resolved));
    HammingTopK(resolved, pool_);
    return absl::OkStatus();
  }

  absl::Status EnqueueTokenCodes(Lane&, const TokenCodesArgs& args) override {
    const TokenCodesArgs resolved = Resolve(args, AsHost);
    SEMSHARE_RETURN_IF_ERROR(CheckTokenCodes(resolved));
    TokenCodes(resolved, pool_);
    return absl::OkStatus();
  }

  absl::Status EnqueueNearestCode(Lane&, const NearestCodeArgs& args) override {
    const NearestCodeArgs resolved = Resolve(args, AsHost);
    SEMSHARE_RETURN_IF_ERROR(CheckNearestCode(resolved));
    NearestCode(resolved, pool_);
    return absl::OkStatus();
  }

  absl::Status EnqueueChecksum(Lane&, absl::Span<const MemorySpan> spans,
                               MemorySpan digests) override {
    SEMSHARE_RETURN_IF_ERROR(CheckChecksum(spans, digests));
    Checksum(spans, ArrayOf<uint64_t>(digests), pool_);
    return absl::OkStatus();
  }

  // The work is done already, and an operation that passed its checks cannot fail.
  absl::StatusOr<Event> Record(Lane&) override { return Event(absl::OkStatus()); }

 private:
  static std::vector<std::unique_ptr<Lane::Impl>> MakeLanes(int count) {
    std::vector<std::unique_ptr<Lane::Impl>> lanes;
    for (int i = 0; i < count; ++i) lanes.push_back(std::make_unique<CpuLane>());
    return lanes;
  }

  const BackendInfo info_;
  // Both provide their own synchronization.
  WorkerPool pool_;
  const std::shared_ptr<LanePool> lanes_;
};

}  // namespace

absl::Status CpuBackendOptions::Validate() const {
  if (lanes < 1 || lanes > 256) {
    return absl::InvalidArgumentError(absl::StrCat("lanes is ", lanes, ": expected 1 to 256"));
  }
  if (threads < 1 || threads > 64) {
    return absl::InvalidArgumentError(absl::StrCat("threads is ", threads, ": expected 1 to 64"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Backend>> NewCpuBackend(const CpuBackendOptions& options) {
  SEMSHARE_RETURN_IF_ERROR(options.Validate());
  return std::make_unique<CpuBackend>(options);
}

}  // namespace semshare
