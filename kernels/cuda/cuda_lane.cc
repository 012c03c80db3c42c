#include "kernels/cuda/cuda_lane.h"

#include <utility>

namespace semshare {
namespace {

// What cuBLAS works with: given to it, it allocates nothing by itself. 4 MiB is what its
// documentation recommends at least for all but Hopper, where more only helps products that are
// larger than any of ours.
constexpr int64_t kBlasWorkspaceBytes = int64_t{4} << 20;

}  // namespace

absl::StatusOr<StagingBuffer> StagingBuffer::Create(int64_t bytes) {
  SEMSHARE_ASSIGN_OR_RETURN(PinnedMemory memory, NewPinnedMemory(bytes));
  SEMSHARE_ASSIGN_OR_RETURN(CudaEvent event, NewCudaEvent());
  return StagingBuffer(std::move(memory), std::move(event));
}

absl::Status StagingBuffer::WaitForUse() {
  if (!used_) return absl::OkStatus();
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(event_.get()));
  used_ = false;
  return absl::OkStatus();
}

absl::Status StagingBuffer::MarkUsed(cudaStream_t stream) {
  used_ = true;
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaEventRecord(event_.get(), stream));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CudaLane>> CudaLane::Create(
    const CudaBackendOptions& options, int multiprocessors,
    std::shared_ptr<const CublasLibrary> blas) {
  SEMSHARE_ASSIGN_OR_RETURN(CudaStream stream, NewCudaStream());
  SEMSHARE_ASSIGN_OR_RETURN(StagingBuffer first, StagingBuffer::Create(options.staging_bytes));
  SEMSHARE_ASSIGN_OR_RETURN(StagingBuffer second, StagingBuffer::Create(options.staging_bytes));
  std::unique_ptr<CudaLane> lane(new CudaLane(options, multiprocessors, std::move(stream),
                                              std::move(first), std::move(second)));
  SEMSHARE_ASSIGN_OR_RETURN(lane->device_staging_, NewDeviceMemory(options.staging_bytes));
  SEMSHARE_ASSIGN_OR_RETURN(lane->scratch_, NewDeviceMemory(options.scratch_bytes));
  SEMSHARE_ASSIGN_OR_RETURN(lane->error_, NewDeviceMemory(sizeof(int32_t)));
  SEMSHARE_ASSIGN_OR_RETURN(lane->blas_workspace_, NewDeviceMemory(kBlasWorkspaceBytes));
  SEMSHARE_ASSIGN_OR_RETURN(lane->blas_,
                            CublasHandle::Create(std::move(blas), lane->stream_.get(),
                                                 lane->blas_workspace_.get(), kBlasWorkspaceBytes));
  return lane;
}

CudaLane::~CudaLane() {
  // Tasks and buffers are still used by what is queued. A failure means that nothing runs any more.
  static_cast<void>(cudaSetDevice(device_));
  static_cast<void>(cudaStreamSynchronize(stream_.get()));
}

absl::Status CudaLane::ResetError() {
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(error(), 0, sizeof(int32_t), stream()));
  return absl::OkStatus();
}

void CudaLane::RunTask(void* task) {
  auto* const host_task = static_cast<HostTask*>(task);
  host_task->run();
  host_task->done.store(true, std::memory_order_release);
}

absl::Status CudaLane::RunOnHost(std::function<void()> run) {
  while (!tasks_.empty() && tasks_.front()->done.load(std::memory_order_acquire)) {
    tasks_.pop_front();
  }
  auto task = std::make_unique<HostTask>();
  task->run = std::move(run);
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaLaunchHostFunc(stream(), &CudaLane::RunTask, task.get()));
  tasks_.push_back(std::move(task));
  return absl::OkStatus();
}

}  // namespace semshare
