#include "kernels/backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {

MemorySpan MemorySpan::Sub(int64_t offset, int64_t length) const {
  SEMSHARE_CHECK(offset >= 0 && length >= 0 && offset <= bytes && length <= bytes - offset);
  return MemorySpan{address + static_cast<uintptr_t>(offset), length, kind};
}

std::byte* MemorySpan::host() const {
  SEMSHARE_CHECK(kind == MemoryKind::kHost);
  return reinterpret_cast<std::byte*>(address);
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    if (deleter_) deleter_(span_);
    span_ = std::exchange(other.span_, MemorySpan{});
    deleter_ = std::exchange(other.deleter_, nullptr);
  }
  return *this;
}

Buffer::~Buffer() {
  if (deleter_) deleter_(span_);
}

absl::StatusOr<std::unique_ptr<PeerMemory>> Backend::OpenPeerMemory(const PeerMemoryHandle&) {
  return absl::UnimplementedError(
      absl::StrCat("cuda_ipc needs --backend=cuda; this broker's is ", info().name));
}

PlaneView ContiguousView(MemorySpan memory, int32_t heads, int32_t width, Dtype dtype) {
  PlaneView view;
  view.memory = memory;
  view.block_tokens = 1;
  view.element_stride = DtypeBytes(dtype);
  view.head_stride = width * view.element_stride;
  view.token_stride = heads * view.head_stride;
  view.block_stride = view.token_stride;
  return view;
}

}  // namespace semshare
