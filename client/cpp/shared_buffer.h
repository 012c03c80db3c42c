// SharedBuffer: memory that this process shares with a broker of the same host. Rows then travel in
// one copy, the broker's own (docs/transports.md):
//
//   auto buffer = SharedBuffer::Create(bytes);
//   auto handle = (*buffer)->Register(info->shm_socket());
//   v1::KvView view;                       // where each plane lies, by strides
//   view.set_region(*handle);
//   ...
//   (*client)->ReadInto(lease, {}, view, [](uint32_t layer) { ... });
//
// A read or a put that failed may still be using the memory for a moment: then it must not be
// written or reused, only destroyed. The region lives until the buffer is destroyed.
//
// Thread-safe but for the bytes. Linux only.
#ifndef SEMSHARE_CLIENT_CPP_SHARED_BUFFER_H_
#define SEMSHARE_CLIENT_CPP_SHARED_BUFFER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace semshare::client {

class SharedBuffer {
 public:
  // A sealed memfd of `bytes` bytes, every page allocated. INVALID_ARGUMENT unless bytes > 0,
  // RESOURCE_EXHAUSTED if there is not that much.
  static absl::StatusOr<std::unique_ptr<SharedBuffer>> Create(int64_t bytes);

  ~SharedBuffer();
  SharedBuffer(const SharedBuffer&) = delete;
  SharedBuffer& operator=(const SharedBuffer&) = delete;

  absl::Span<char> bytes() const { return {data_, size_}; }

  // Hands the memory to the broker that listens on the unix socket `path` and returns the handle of
  // 16 bytes for KvView.region. Each call makes a region of its own. The broker's own refusal, or
  // UNAVAILABLE if it cannot be reached or does not answer in five seconds.
  absl::StatusOr<std::string> Register(const std::string& path);

 private:
  struct Connections;
  SharedBuffer(int fd, char* data, size_t size);

  const int fd_;
  char* const data_;
  const size_t size_;
  const std::unique_ptr<Connections> connections_;
};

}  // namespace semshare::client

#endif  // SEMSHARE_CLIENT_CPP_SHARED_BUFFER_H_
