// SharedMemory: a worker's side of the shared-memory transport, for tests: a memfd with seals of
// choice, mapped here. Not thread-safe.
#ifndef SEMSHARE_TESTS_TESTING_SHARED_MEMORY_H_
#define SEMSHARE_TESTS_TESTING_SHARED_MEMORY_H_

#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace semshare::testing {

class SharedMemory {
 public:
  static constexpr int kGoodSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

  // `allocated` false leaves the pages to the first touch, which the broker refuses.
  explicit SharedMemory(int64_t bytes, int seals = kGoodSeals, bool allocated = true);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  int fd() const { return fd_; }
  int64_t bytes() const { return bytes_; }
  std::byte* data() const { return static_cast<std::byte*>(address_); }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(address_);
  }

 private:
  const int64_t bytes_;
  int fd_ = -1;
  void* address_ = nullptr;
};

// A connection to the broker's socket; the regions live until it is destroyed.
class ShmConnection {
 public:
  explicit ShmConnection(const std::string& path);
  ~ShmConnection();
  ShmConnection(const ShmConnection&) = delete;
  ShmConnection& operator=(const ShmConnection&) = delete;

  bool connected() const { return connected_; }
  // The handle, or the broker's refusal.
  absl::StatusOr<std::string> Register(const SharedMemory& memory);
  absl::StatusOr<std::string> Register(const PeerMemoryHandle& memory);
  // Takes the regions back, and returns once the broker has closed its end.
  void ShutDown();
  // Whether the broker has closed its end; does not wait.
  bool AtEnd() const;
  // Sends any message with `count` copies of `fd`. The broker's answer, empty if it hung up.
  std::string Exchange(const std::string& message, int fd, int count);

 private:
  absl::StatusOr<std::string> HandleOf(const std::string& answer) const;

  int socket_ = -1;
  bool connected_ = false;
};

}  // namespace semshare::testing

#endif  // SEMSHARE_TESTS_TESTING_SHARED_MEMORY_H_
