#include "kernels/cuda/staged_tables.h"

#include <cstring>
#include <utility>

namespace semshare {

absl::Status StagedTables::TakeBuffer() {
  if (buffer_ != nullptr) return absl::OkStatus();
  StagingBuffer& buffer = lane_.NextBuffer();
  SEMSHARE_RETURN_IF_ERROR(buffer.WaitForUse());
  buffer_ = &buffer;
  return absl::OkStatus();
}

absl::StatusOr<const void*> StagedTables::InputBytes(absl::string_view field,
                                                     const MemorySpan& span, int64_t bytes) {
  SEMSHARE_CHECK(results_.empty());
  if (span.kind == MemoryKind::kDevice || bytes == 0) {
    return reinterpret_cast<const void*>(span.address);
  }
  SEMSHARE_ASSIGN_OR_RETURN(const int64_t offset, plan_.Add(field, bytes));
  SEMSHARE_RETURN_IF_ERROR(TakeBuffer());
  std::memcpy(buffer_->host() + offset, span.host(), static_cast<size_t>(bytes));
  input_bytes_ = plan_.used();
  return lane_.device_staging() + offset;
}

absl::StatusOr<void*> StagedTables::OutputBytes(absl::string_view field, const MemorySpan& span,
                                                int64_t bytes) {
  if (span.kind == MemoryKind::kDevice || bytes == 0) return reinterpret_cast<void*>(span.address);
  SEMSHARE_ASSIGN_OR_RETURN(const int64_t offset, plan_.Add(field, bytes));
  SEMSHARE_RETURN_IF_ERROR(TakeBuffer());
  results_.push_back({offset, span.Sub(0, bytes)});
  return lane_.device_staging() + offset;
}

absl::Status StagedTables::Upload() {
  if (input_bytes_ == 0) return absl::OkStatus();
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(lane_.device_staging(), buffer_->host(),
                                                static_cast<size_t>(input_bytes_),
                                                cudaMemcpyHostToDevice, lane_.stream()));
  return buffer_->MarkUsed(lane_.stream());
}

absl::Status StagedTables::Return() {
  if (results_.empty()) return absl::OkStatus();
  const int64_t begin = results_.front().offset;
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(
      buffer_->host() + begin, lane_.device_staging() + begin,
      static_cast<size_t>(plan_.used() - begin), cudaMemcpyDeviceToHost, lane_.stream()));
  SEMSHARE_RETURN_IF_ERROR(lane_.RunOnHost([from = buffer_->host(), results = std::move(results_)] {
    for (const Result& result : results) {
      std::memcpy(result.span.host(), from + result.offset, static_cast<size_t>(result.span.bytes));
    }
  }));
  return buffer_->MarkUsed(lane_.stream());
}

}  // namespace semshare
