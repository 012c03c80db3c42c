// CUDA's handles as owners, and the one place where cudaError_t and cublasStatus_t become Status.
//
// Owners are move-only and free what they hold when destroyed; an empty one holds nothing. They are
// as thread-safe as the handles that they hold: one thread at a time, except that events may be
// waited for by several.
#ifndef SEMSHARE_KERNELS_CUDA_CUDA_RAII_H_
#define SEMSHARE_KERNELS_CUDA_CUDA_RAII_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/base/status_macros.h"

namespace semshare {

// OK, or the error with what was attempted: RESOURCE_EXHAUSTED where memory lacks,
// FAILED_PRECONDITION where there is no usable device, else INTERNAL. Clears the thread's last
// error, so that it is not taken for one of the next launch.
absl::Status CudaStatus(cudaError_t error, absl::string_view attempted);

#define SEMSHARE_CUDA_RETURN_IF_ERROR(expr) \
  SEMSHARE_RETURN_IF_ERROR(::semshare::CudaStatus((expr), #expr))

// Follows every launch.
#define SEMSHARE_RETURN_IF_LAUNCH_FAILED(kernel) \
  SEMSHARE_RETURN_IF_ERROR(::semshare::CudaStatus(cudaGetLastError(), "launch of " kernel))

// Owns one handle that `kFree` frees.
template <class Handle, cudaError_t (*kFree)(Handle)>
class CudaOwner {
 public:
  CudaOwner() = default;
  explicit CudaOwner(Handle handle) : handle_(handle) {}
  CudaOwner(CudaOwner&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  CudaOwner& operator=(CudaOwner&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~CudaOwner() {
    // Nobody could do anything about a failure: the context is gone then, and the handle with it.
    if (handle_ != nullptr) static_cast<void>(kFree(handle_));
  }

  Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};

using CudaStream = CudaOwner<cudaStream_t, &cudaStreamDestroy>;
using CudaEvent = CudaOwner<cudaEvent_t, &cudaEventDestroy>;
using DeviceMemory = CudaOwner<void*, &cudaFree>;
using PinnedMemory = CudaOwner<void*, &cudaFreeHost>;

// Non-blocking: it takes no part in the default stream's synchronization.
absl::StatusOr<CudaStream> NewCudaStream();
// Without timing, and waiting for it yields the processor: a broker has other work for its threads.
absl::StatusOr<CudaEvent> NewCudaEvent();
// Zeroed; the device's own queue is waited for, so other streams may use it at once.
absl::StatusOr<DeviceMemory> NewDeviceMemory(int64_t bytes);
// Zeroed, at the same address for host and device.
absl::StatusOr<PinnedMemory> NewPinnedMemory(int64_t bytes);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_CUDA_RAII_H_
