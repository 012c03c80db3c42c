#include "tests/testing/late_backend.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/mutex.h"
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
#include "kernels/operands.h"
#include "kernels/peer_memory.h"
#include "kernels/span_registry.h"
#include "tests/testing/late_lane.h"
#include "tests/testing/late_memory.h"

namespace semshare {
namespace {

// Statuses to be returned instead of doing something. Thread-safe.
class Faults {
 public:
  void Add(LateOp op, absl::Status status) {
    SEMSHARE_CHECK(!status.ok());
    MutexLock lock(&mutex_);
    faults_[op].push_back(std::move(status));
  }

  // The next one for `op`, which is used up, or OK.
  absl::Status Take(LateOp op) {
    MutexLock lock(&mutex_);
    const auto found = faults_.find(op);
    if (found == faults_.end() || found->second.empty()) return absl::OkStatus();
    absl::Status status = std::move(found->second.front());
    found->second.pop_front();
    return status;
  }

 private:
  Mutex mutex_;
  std::map<LateOp, std::deque<absl::Status>> faults_ ABSL_GUARDED_BY(mutex_);
};

class LateLane final : public Lane::Impl {
 public:
  explicit LateLane(std::shared_ptr<LateLaneCore> core) : core_(std::move(core)) {}
  LateLaneCore& core() { return *core_; }

 private:
  const std::shared_ptr<LateLaneCore> core_;
};

// What its owner sends: a duplicate of the memfd's number, where CUDA's driver has its handles.
constexpr std::array<char, 16> kLateDevice = {'l', 'a', 't', 'e'};
constexpr std::array<char, 64> kLateEvent = {'e', 'v', 'e', 'n', 't'};

LateLaneCore& CoreOf(Lane& lane) { return static_cast<LateLane*>(lane.impl())->core(); }

class LatePeerMemory final : public PeerMemory {
 public:
  LatePeerMemory(const MemorySpan& span, Buffer mapping, std::shared_ptr<PeerEvent> event,
                 std::shared_ptr<std::atomic<int64_t>> open)
      : PeerMemory(span),
        mapping_(std::move(mapping)),
        event_(std::move(event)),
        open_(std::move(open)) {
    ++*open_;
  }
  ~LatePeerMemory() override {
    mapping_ = Buffer();
    --*open_;
  }

  absl::Status EnqueueWait(Lane& lane) const override {
    CoreOf(lane).Enqueue([event = event_] {
      event->Wait();
      return absl::OkStatus();
    });
    return absl::OkStatus();
  }

 private:
  Buffer mapping_;
  const std::shared_ptr<PeerEvent> event_;
  const std::shared_ptr<std::atomic<int64_t>> open_;
};

class LateBackendImpl final : public LateBackend {
 public:
  explicit LateBackendImpl(const LateBackendOptions& options) {
    std::vector<std::unique_ptr<Lane::Impl>> lanes;
    for (int i = 0; i < options.lanes; ++i) {
      cores_.push_back(std::make_shared<LateLaneCore>(options.delay));
      cores_.back()->Start();
      lanes.push_back(std::make_unique<LateLane>(cores_.back()));
    }
    lanes_ = std::make_shared<LanePool>(std::move(lanes));
  }

  ~LateBackendImpl() override {
    for (const std::shared_ptr<LateLaneCore>& core : cores_) core->Stop();
    for (const int fd : exported_) close(fd);
  }

  void FailNext(LateOp op, absl::Status status) override { failures_.Add(op, std::move(status)); }
  void RefuseNext(LateOp op, absl::Status status) override { refusals_.Add(op, std::move(status)); }
  void HoldWork() override { SetHeld(true); }
  void ReleaseWork() override { SetHeld(false); }
  PeerMemoryHandle ExportPeerMemory(int fd) override {
    struct stat info;
    SEMSHARE_CHECK(fstat(fd, &info) == 0);
    const int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    SEMSHARE_CHECK(kept >= 0);
    MutexLock lock(&exported_mutex_);
    exported_.push_back(kept);
    PeerMemoryHandle handle{kLateDevice, {}, kLateEvent, 0, info.st_size};
    std::memcpy(handle.allocation.data(), &kept, sizeof(kept));
    return handle;
  }
  void HoldPeerEvent() override { event_->SetHeld(true); }
  void ReleasePeerEvent() override { event_->SetHeld(false); }
  int64_t peer_waits() const override { return event_->waits(); }
  int64_t open_peers() const override { return open_peers_->load(); }
  int64_t allocations() const override { return allocations_->load(); }
  int64_t allocated_bytes() const override { return allocated_bytes_->load(); }

  const BackendInfo& info() const override { return info_; }

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes) override {
    SEMSHARE_RETURN_IF_ERROR(TakeAny(LateOp::kAllocate));
    if (bytes < 1) return absl::InvalidArgumentError("bytes: expected at least 1");
    SEMSHARE_ASSIGN_OR_RETURN(Buffer buffer, kind == MemoryKind::kDevice
                                                 ? memory_->Allocate(bytes)
                                                 : AllocateHostMemory(kind, bytes));
    allocations_->fetch_add(1);
    allocated_bytes_->fetch_add(bytes);
    const MemorySpan span = buffer.span();
    if (kind == MemoryKind::kHost) SEMSHARE_RETURN_IF_ERROR(reachable_->Add(span));
    // Wrapped once more, so that freeing is counted.
    auto owned = std::make_shared<Buffer>(std::move(buffer));
    return Buffer(span, [owned = std::move(owned), count = allocated_bytes_,
                         reachable = reachable_](MemorySpan freed) {
      if (freed.kind == MemoryKind::kHost) reachable->Remove(freed);
      *owned = Buffer();
      count->fetch_sub(freed.bytes);
    });
  }

  absl::StatusOr<Buffer> RegisterHost(MemorySpan memory) override {
    SEMSHARE_RETURN_IF_ERROR(TakeAny(LateOp::kRegisterHost));
    SEMSHARE_RETURN_IF_ERROR(CheckRegisterHost(memory));
    SEMSHARE_RETURN_IF_ERROR(reachable_->Add(memory));
    return Buffer(memory, [reachable = reachable_](MemorySpan span) { reachable->Remove(span); });
  }

  absl::StatusOr<std::unique_ptr<PeerMemory>> OpenPeerMemory(
      const PeerMemoryHandle& handle) override {
    SEMSHARE_RETURN_IF_ERROR(TakeAny(LateOp::kOpenPeerMemory));
    SEMSHARE_RETURN_IF_ERROR(CheckPeerDevice(kLateDevice, handle.device));
    int fd;
    std::memcpy(&fd, handle.allocation.data(), sizeof(fd));
    struct stat info;
    {
      MutexLock lock(&exported_mutex_);
      const bool exported = std::count(exported_.begin(), exported_.end(), fd) > 0;
      if (!exported || handle.event != kLateEvent || fstat(fd, &info) != 0) {
        return PeerOpenError("not exported");
      }
    }
    SEMSHARE_ASSIGN_OR_RETURN(Buffer mapping, memory_->Map(fd, info.st_size, /*peers=*/true));
    SEMSHARE_ASSIGN_OR_RETURN(const MemorySpan span,
                              PeerSpan(handle, mapping.span().address, mapping.span()));
    return std::make_unique<LatePeerMemory>(span, std::move(mapping), event_, open_peers_);
  }

  absl::StatusOr<Lane> AcquireLane(absl::Duration timeout) override {
    SEMSHARE_RETURN_IF_ERROR(TakeAny(LateOp::kAcquireLane));
    SEMSHARE_ASSIGN_OR_RETURN(Lane lane, lanes_->Acquire(timeout));
    CoreOf(lane).EnqueueReset();
    return lane;
  }

  absl::Status SupportsRealign(const RealignArgs& args) const override {
    return KernelsSupportRealign(args);
  }

  absl::Status EnqueueCopy(Lane& lane, MemorySpan destination, MemorySpan source) override {
    SEMSHARE_RETURN_IF_ERROR(refusals_.Take(LateOp::kCopy));
    SEMSHARE_RETURN_IF_ERROR(CheckCopy(destination, source));
    SEMSHARE_RETURN_IF_ERROR(CheckAllocated({destination, source}));
    Enqueue(lane, LateOp::kCopy, [this, destination, source] {
      Copy(memory_->Resolve(destination), memory_->Resolve(source), pool_);
      return absl::OkStatus();
    });
    return absl::OkStatus();
  }

  using Backend::EnqueueRealign;
  absl::Status EnqueueRealign(Lane& lane, absl::Span<const RealignArgs> batch) override {
    SEMSHARE_RETURN_IF_ERROR(refusals_.Take(LateOp::kRealign));
    SEMSHARE_RETURN_IF_ERROR(CheckRealignBatch(batch));
    for (const RealignArgs& args : batch) SEMSHARE_RETURN_IF_ERROR(CheckMemory(args));
    std::vector<RealignArgs> list(batch.begin(), batch.end());
    Enqueue(lane, LateOp::kRealign, [this, list = std::move(list)]() mutable {
      for (RealignArgs& args : list) args = ResolveAll(args);
      SEMSHARE_RETURN_IF_ERROR(CheckRealignBatch(list));
      for (const RealignArgs& args : list) Realign(args, pool_);
      return absl::OkStatus();
    });
    return absl::OkStatus();
  }
  absl::Status EnqueueProject(Lane& lane, const ProjectArgs& args) override {
    return EnqueueChecked(lane, LateOp::kProject, args, &CheckProject, &Project);
  }
  absl::Status EnqueueSignature(Lane& lane, const SignatureArgs& args) override {
    return EnqueueChecked(lane, LateOp::kSignature, args, &CheckSignature, &Signature);
  }
  absl::Status EnqueueHammingTopK(Lane& lane, const HammingTopKArgs& args) override {
    return EnqueueChecked(lane, LateOp::kHammingTopK, args, &CheckHammingTopK, &HammingTopK);
  }
  absl::Status EnqueueTokenCodes(Lane& lane, const TokenCodesArgs& args) override {
    return EnqueueChecked(lane, LateOp::kTokenCodes, args, &CheckTokenCodes, &TokenCodes);
  }
  absl::Status EnqueueNearestCode(Lane& lane, const NearestCodeArgs& args) override {
    return EnqueueChecked(lane, LateOp::kNearestCode, args, &CheckNearestCode, &NearestCode);
  }

  absl::Status EnqueueChecksum(Lane& lane, absl::Span<const MemorySpan> spans,
                               MemorySpan digests) override {
    SEMSHARE_RETURN_IF_ERROR(refusals_.Take(LateOp::kChecksum));
    SEMSHARE_RETURN_IF_ERROR(CheckChecksum(spans, digests));
    SEMSHARE_RETURN_IF_ERROR(CheckAllocated(spans));
    std::vector<MemorySpan> list(spans.begin(), spans.end());
    Enqueue(lane, LateOp::kChecksum, [this, list = std::move(list), digests]() mutable {
      for (MemorySpan& span : list) span = memory_->Resolve(span);
      Checksum(list, ArrayOf<uint64_t>(digests), pool_);
      return absl::OkStatus();
    });
    return absl::OkStatus();
  }

  absl::StatusOr<Event> Record(Lane& lane) override {
    SEMSHARE_RETURN_IF_ERROR(TakeAny(LateOp::kRecord));
    return CoreOf(lane).Record();
  }

 private:
  absl::Status TakeAny(LateOp op) {
    SEMSHARE_RETURN_IF_ERROR(refusals_.Take(op));
    return failures_.Take(op);
  }

  void SetHeld(bool held) {
    for (const std::shared_ptr<LateLaneCore>& core : cores_) core->SetHeld(held);
  }

  absl::Status CheckAllocated(absl::Span<const MemorySpan> spans) const {
    for (const MemorySpan& span : spans) {
      if (!memory_->Contains(span)) {
        return absl::InvalidArgumentError("a device span is not memory of this backend");
      }
    }
    return absl::OkStatus();
  }

  // Device spans are memory of this backend, and operands are memory that a device would reach.
  template <typename Args>
  absl::Status CheckMemory(const Args& args) const {
    bool allocated = true;
    Resolve(args, [this, &allocated](const MemorySpan& span) {
      allocated = allocated && memory_->Contains(span);
      return span;
    });
    if (!allocated) return CheckAllocated({MemorySpan{0, -1, MemoryKind::kDevice}});
    for (const NamedSpan& operand : OperandsOf(args)) {
      if (operand.span.kind == MemoryKind::kDevice || reachable_->Contains(operand.span)) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          operand.name, " is host memory that was neither allocated nor registered here"));
    }
    return absl::OkStatus();
  }

  template <typename Args>
  Args ResolveAll(const Args& args) const {
    return Resolve(args, [this](const MemorySpan& span) { return memory_->Resolve(span); });
  }

  // Queues `work`, or the failure that was ordered for it.
  void Enqueue(Lane& lane, LateOp op, LateLaneCore::Work work) {
    absl::Status failure = failures_.Take(op);
    if (!failure.ok()) work = [failure] { return failure; };
    CoreOf(lane).Enqueue(std::move(work));
  }

  // Checks what the host can see now, and everything when the work runs: tables in device memory
  // can be checked only then.
  template <typename Args>
  absl::Status EnqueueChecked(Lane& lane, LateOp op, const Args& args,
                              absl::Status (*check)(const Args&),
                              void (*run)(const Args&, WorkerPool&)) {
    SEMSHARE_RETURN_IF_ERROR(refusals_.Take(op));
    SEMSHARE_RETURN_IF_ERROR(check(args));
    SEMSHARE_RETURN_IF_ERROR(CheckMemory(args));
    Enqueue(lane, op, [this, args, check, run] {
      const Args resolved = ResolveAll(args);
      SEMSHARE_RETURN_IF_ERROR(check(resolved));
      run(resolved, pool_);
      return absl::OkStatus();
    });
    return absl::OkStatus();
  }

  const BackendInfo info_{"late", "CPU behind a queue", /*opens_peer_memory=*/true};
  Mutex exported_mutex_;
  std::vector<int> exported_ ABSL_GUARDED_BY(exported_mutex_);
  // All below provide their own synchronization.
  const std::shared_ptr<PeerEvent> event_ = std::make_shared<PeerEvent>();
  const std::shared_ptr<std::atomic<int64_t>> open_peers_ =
      std::make_shared<std::atomic<int64_t>>(0);
  const std::shared_ptr<LateMemory> memory_ = std::make_shared<LateMemory>(event_);
  // Shared with the buffers.
  const std::shared_ptr<SpanRegistry> reachable_ = std::make_shared<SpanRegistry>();
  const std::shared_ptr<std::atomic<int64_t>> allocations_ =
      std::make_shared<std::atomic<int64_t>>(0);
  const std::shared_ptr<std::atomic<int64_t>> allocated_bytes_ =
      std::make_shared<std::atomic<int64_t>>(0);
  Faults failures_;
  Faults refusals_;
  WorkerPool pool_{1};                                // no threads: operations run in their lane's
  std::vector<std::shared_ptr<LateLaneCore>> cores_;  // constant after construction
  std::shared_ptr<LanePool> lanes_;                   // constant after construction
};

}  // namespace

std::unique_ptr<LateBackend> NewLateBackend(const LateBackendOptions& options) {
  SEMSHARE_CHECK(options.lanes >= 1);
  return std::make_unique<LateBackendImpl>(options);
}

}  // namespace semshare
