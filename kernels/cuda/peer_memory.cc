#include "kernels/cuda/peer_memory.h"

#include <cudaTypedefs.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "kernels/cuda/cuda_lane.h"
#include "kernels/cuda/cuda_raii.h"
#include "kernels/peer_memory.h"

namespace semshare {
namespace {

static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(PeerMemoryHandle::allocation));
static_assert(sizeof(cudaIpcEventHandle_t) == sizeof(PeerMemoryHandle::event));

using IpcMemory = CudaOwner<void*, &cudaIpcCloseMemHandle>;

// The range that is mapped around an address. The driver is asked through the runtime, so that the
// library of the driver is not linked and a machine without one still starts.
absl::StatusOr<MemorySpan> MappingAround(const void* address) {
  constexpr unsigned kVersion = 12000;  // the function is older, the runtime's way to it is not
  void* function = nullptr;
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &function,
                                                                 kVersion, cudaEnableDefault));
  if (function == nullptr) return absl::InternalError("the driver has no cuMemGetAddressRange");
  CUdeviceptr base = 0;
  size_t bytes = 0;
  const CUresult result = reinterpret_cast<PFN_cuMemGetAddressRange_v3020>(function)(
      &base, &bytes, reinterpret_cast<CUdeviceptr>(address));
  if (result != CUDA_SUCCESS) {
    return absl::InternalError(
        absl::StrCat("cuMemGetAddressRange: error ", static_cast<int>(result)));
  }
  return MemorySpan{static_cast<uintptr_t>(base), static_cast<int64_t>(bytes), MemoryKind::kDevice};
}

// The driver counts how often a process opened a handle and gives the same address each time; the
// registry counts along.
class CudaPeerMemory final : public PeerMemory {
 public:
  CudaPeerMemory(const MemorySpan& span, int device, IpcMemory memory, CudaEvent event,
                 const MemorySpan& mapping, std::shared_ptr<SpanRegistry> registry)
      : PeerMemory(span),
        device_(device),
        mapping_(mapping),
        registry_(std::move(registry)),
        memory_(std::move(memory)),
        event_(std::move(event)) {}

  ~CudaPeerMemory() override {
    registry_->Remove(mapping_);  // before the address may become another mapping's
    static_cast<void>(cudaSetDevice(device_));
  }

  absl::Status EnqueueWait(Lane& lane) const override {
    SEMSHARE_CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
    SEMSHARE_CUDA_RETURN_IF_ERROR(cudaStreamWaitEvent(static_cast<CudaLane*>(lane.impl())->stream(),
                                                      event_.get(), cudaEventWaitDefault));
    return absl::OkStatus();
  }

 private:
  const int device_;
  const MemorySpan mapping_;
  const std::shared_ptr<SpanRegistry> registry_;
  const IpcMemory memory_;
  const CudaEvent event_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PeerMemory>> OpenCudaPeerMemory(
    int device, const PeerMemoryHandle& handle, std::shared_ptr<SpanRegistry> registry) {
  cudaIpcMemHandle_t allocation;
  std::memcpy(&allocation, handle.allocation.data(), sizeof(allocation));
  void* address = nullptr;
  // The only flag that there is; with one device no peer access is ever enabled.
  cudaError_t error = cudaIpcOpenMemHandle(&address, allocation, cudaIpcMemLazyEnablePeerAccess);
  if (error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // not to be taken for one of the next launch
    return PeerOpenError(cudaGetErrorName(error));
  }
  IpcMemory memory(address);
  SEMSHARE_ASSIGN_OR_RETURN(const MemorySpan mapping, MappingAround(address));
  SEMSHARE_ASSIGN_OR_RETURN(const MemorySpan span,
                            PeerSpan(handle, reinterpret_cast<uintptr_t>(address), mapping));
  cudaIpcEventHandle_t shared;
  std::memcpy(&shared, handle.event.data(), sizeof(shared));
  cudaEvent_t opened = nullptr;
  error = cudaIpcOpenEventHandle(&opened, shared);
  if (error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return PeerOpenError(cudaGetErrorName(error));
  }
  CudaEvent event(opened);
  SEMSHARE_RETURN_IF_ERROR(registry->AddShared(mapping));
  return std::make_unique<CudaPeerMemory>(span, device, std::move(memory), std::move(event),
                                          mapping, std::move(registry));
}

}  // namespace semshare
