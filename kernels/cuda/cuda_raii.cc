#include "kernels/cuda/cuda_raii.h"

#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace semshare {

absl::Status CudaStatus(cudaError_t error, absl::string_view attempted) {
  if (error == cudaSuccess) return absl::OkStatus();
  static_cast<void>(cudaGetLastError());
  const std::string message =
      absl::StrCat(attempted, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(message);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorInitializationError:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorStubLibrary:
      return absl::FailedPreconditionError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<CudaStream> NewCudaStream() {
  cudaStream_t stream = nullptr;
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return CudaStream(stream);
}

absl::StatusOr<CudaEvent> NewCudaEvent() {
  cudaEvent_t event = nullptr;
  SEMSHARE_CUDA_RETURN_IF_ERROR(
      cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync));
  return CudaEvent(event);
}

absl::StatusOr<DeviceMemory> NewDeviceMemory(int64_t bytes) {
  void* memory = nullptr;
  SEMSHARE_RETURN_IF_ERROR(CudaStatus(cudaMalloc(&memory, static_cast<size_t>(bytes)),
                                      absl::StrCat("device memory of ", bytes, " bytes")));
  DeviceMemory owner(memory);
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaMemset(memory, 0, static_cast<size_t>(bytes)));
  // cudaMemset of device memory may return before it is done, and other streams do not wait for it.
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(cudaStreamLegacy));
  return owner;
}

absl::StatusOr<PinnedMemory> NewPinnedMemory(int64_t bytes) {
  // The driver would try for a long time to pin what the machine has not got.
  const int64_t physical_bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  const std::string attempted = absl::StrCat("pinned memory of ", bytes, " bytes");
  if (bytes > physical_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(attempted, ": the machine has ", physical_bytes));
  }
  void* memory = nullptr;
  SEMSHARE_RETURN_IF_ERROR(CudaStatus(cudaHostAlloc(&memory, static_cast<size_t>(bytes),
                                                    cudaHostAllocPortable | cudaHostAllocMapped),
                                      attempted));
  std::memset(memory, 0, static_cast<size_t>(bytes));
  return PinnedMemory(memory);
}

}  // namespace semshare
