#include "server/transport/staging.h"

#include <utility>

#include "kernels/base/status_macros.h"

namespace semshare {

StreamStaging::StreamStaging(StagingPool* pool, std::vector<int> buffers)
    : pool_(pool), buffers_(std::move(buffers)), free_(buffers_) {}

StreamStaging::~StreamStaging() { pool_->GiveBack(buffers_); }

int StreamStaging::TryTake() {
  MutexLock lock(&mutex_);
  if (free_.empty()) return -1;
  const int buffer = free_.back();
  free_.pop_back();
  return buffer;
}

MemorySpan StreamStaging::span(int buffer) const {
  return pool_->memory_.span().Sub(buffer * pool_->buffer_bytes_, pool_->buffer_bytes_);
}

void StreamStaging::Return(int buffer) {
  {
    MutexLock lock(&mutex_);
    free_.push_back(buffer);
  }
  MutexLock lock(&listener_mutex_);
  if (listener_) listener_();
}

void StreamStaging::SetListener(std::function<void()> listener) {
  MutexLock lock(&listener_mutex_);
  listener_ = std::move(listener);
}

StagingPool::StagingPool(Buffer memory, int buffers, int64_t buffer_bytes)
    : memory_(std::move(memory)), buffer_bytes_(buffer_bytes) {
  for (int i = buffers - 1; i >= 0; --i) free_.push_back(i);
}

absl::StatusOr<std::unique_ptr<StagingPool>> StagingPool::Create(Backend* backend, int streams,
                                                                 int64_t buffer_bytes) {
  if (streams < 1 || buffer_bytes < 1) {
    return absl::InvalidArgumentError("streams and buffer_bytes must be positive");
  }
  const int buffers = streams * kBuffersPerStream;
  SEMSHARE_ASSIGN_OR_RETURN(Buffer memory,
                            backend->Allocate(MemoryKind::kHost, buffers * buffer_bytes));
  return std::unique_ptr<StagingPool>(new StagingPool(std::move(memory), buffers, buffer_bytes));
}

absl::StatusOr<std::shared_ptr<StreamStaging>> StagingPool::Borrow() {
  std::vector<int> buffers;
  {
    MutexLock lock(&mutex_);
    if (free_.size() < kBuffersPerStream) {
      return absl::ResourceExhaustedError("every stream's staging is in use; retry later");
    }
    buffers.assign(free_.end() - kBuffersPerStream, free_.end());
    free_.resize(free_.size() - kBuffersPerStream);
  }
  return std::shared_ptr<StreamStaging>(new StreamStaging(this, std::move(buffers)));
}

void StagingPool::GiveBack(const std::vector<int>& buffers) {
  MutexLock lock(&mutex_);
  free_.insert(free_.end(), buffers.begin(), buffers.end());
}

}  // namespace semshare
