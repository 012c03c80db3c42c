// CudaLane: one stream and what work on it needs: two pinned staging buffers, a device buffer of
// the same size, scratch, the word of what kernels found wrong, and host functions.
//
// The host writes into a pinned buffer only once the copies from it are over, which an event of the
// buffer says; two of them let it fill one while the other is read. Everything else is ordered by
// the stream. Nothing else waits.
//
// Not thread-safe: a lane belongs to one thread at a time. The destructor waits for its work.
#ifndef SEMSHARE_KERNELS_CUDA_CUDA_LANE_H_
#define SEMSHARE_KERNELS_CUDA_CUDA_LANE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda_raii.h"

namespace semshare {

// One of a lane's pinned buffers.
class StagingBuffer {
 public:
  static absl::StatusOr<StagingBuffer> Create(int64_t bytes);

  std::byte* host() const { return static_cast<std::byte*>(memory_.get()); }

  // Waits until the copies from and into the buffer are over, so that the host may write.
  absl::Status WaitForUse();
  // What is on the stream so far uses the buffer.
  absl::Status MarkUsed(cudaStream_t stream);

 private:
  StagingBuffer(PinnedMemory memory, CudaEvent event)
      : memory_(std::move(memory)), event_(std::move(event)) {}

  PinnedMemory memory_;
  CudaEvent event_;
  bool used_ = false;
};

class CudaLane final : public Lane::Impl {
 public:
  // REQUIRES: the device is current.
  static absl::StatusOr<std::unique_ptr<CudaLane>> Create(
      const CudaBackendOptions& options, int multiprocessors,
      std::shared_ptr<const CublasLibrary> blas);
  ~CudaLane() override;

  cudaStream_t stream() const { return stream_.get(); }
  int32_t* error() const { return static_cast<int32_t*>(error_.get()); }
  CublasHandle& blas() { return blas_; }
  int multiprocessors() const { return multiprocessors_; }

  int64_t staging_bytes() const { return staging_bytes_; }
  std::byte* device_staging() const { return static_cast<std::byte*>(device_staging_.get()); }
  // The next pinned buffer, in turn.
  StagingBuffer& NextBuffer() { return buffers_[next_++ % 2]; }

  int64_t scratch_bytes() const { return scratch_bytes_; }
  std::byte* scratch() const { return static_cast<std::byte*>(scratch_.get()); }

  // Forgets, in order, what kernels found wrong: a new borrower must not see it.
  absl::Status ResetError();

  // Queues a function that runs on a thread of the driver; it must not call CUDA.
  absl::Status RunOnHost(std::function<void()> run);

 private:
  struct HostTask {
    std::function<void()> run;
    std::atomic<bool> done{false};
  };

  CudaLane(const CudaBackendOptions& options, int multiprocessors, CudaStream stream,
           StagingBuffer first, StagingBuffer second)
      : staging_bytes_(options.staging_bytes),
        scratch_bytes_(options.scratch_bytes),
        multiprocessors_(multiprocessors),
        device_(options.device),
        stream_(std::move(stream)),
        buffers_{std::move(first), std::move(second)} {}

  static void RunTask(void* task);

  const int64_t staging_bytes_;
  const int64_t scratch_bytes_;
  const int multiprocessors_;
  const int device_;
  CudaStream stream_;
  StagingBuffer buffers_[2];
  unsigned next_ = 0;
  DeviceMemory device_staging_;
  DeviceMemory scratch_;
  DeviceMemory error_;
  DeviceMemory blas_workspace_;
  CublasHandle blas_;
  std::deque<std::unique_ptr<HostTask>> tasks_;  // in the order of the stream
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_CUDA_LANE_H_
