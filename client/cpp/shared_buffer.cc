#include "client/cpp/shared_buffer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/shm_wire.h"

namespace semshare::client {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr timeval kTimeout = {5, 0};

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&&) = delete;
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::Status Unavailable(const char* what, const std::string& path) {
  return absl::UnavailableError(
      absl::StrCat("shared memory: can't ", what, " ", path, ": ", std::strerror(errno)));
}

absl::StatusOr<Fd> Connect(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("shared memory: no socket path: ", path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (socket.get() < 0 ||
      setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof(kTimeout)) != 0 ||
      setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof(kTimeout)) != 0 ||
      connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return Unavailable("connect to", path);
  }
  return socket;
}

bool SendHello(int socket, int fd, size_t bytes) {
  ShmHello hello = {};
  std::memcpy(hello.magic, kShmMagic, sizeof(kShmMagic));
  hello.bytes = bytes;
  iovec part = {&hello, sizeof(hello)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
  return sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof(hello);
}

absl::StatusOr<std::string> ReadAnswer(int socket, const std::string& path) {
  ShmAnswer answer = {};
  const ssize_t bytes = recv(socket, &answer, sizeof(answer), MSG_TRUNC);
  if (bytes < 0) return Unavailable("hear from", path);
  if (bytes != sizeof(answer) || std::memcmp(answer.magic, kShmMagic, sizeof(kShmMagic)) != 0) {
    return absl::UnavailableError(
        absl::StrCat("shared memory: the answer of ", path, " is not one of this version"));
  }
  if (answer.code != 0) {
    answer.message[sizeof(answer.message) - 1] = 0;
    return absl::Status(static_cast<absl::StatusCode>(answer.code), answer.message);
  }
  return std::string(answer.handle, sizeof(answer.handle));
}

}  // namespace

// The open sockets, which keep the regions alive.
struct SharedBuffer::Connections {
  std::mutex mutex;
  std::vector<Fd> sockets;  // guarded by mutex
};

SharedBuffer::SharedBuffer(int fd, char* data, size_t size)
    : fd_(fd), data_(data), size_(size), connections_(std::make_unique<Connections>()) {}

SharedBuffer::~SharedBuffer() {
  munmap(data_, size_);
  close(fd_);
}

absl::StatusOr<std::unique_ptr<SharedBuffer>> SharedBuffer::Create(int64_t bytes) {
  if (bytes <= 0) return absl::InvalidArgumentError("shared memory: at least one byte");
  Fd fd(memfd_create("semshare", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // The broker takes no pages that it would have to allocate itself.
  if (fd.get() < 0 || ftruncate(fd.get(), bytes) != 0 || posix_fallocate(fd.get(), 0, bytes) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("shared memory: can't take ", bytes, " bytes"));
  }
  void* const address = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (address == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("shared memory: can't map ", bytes, " bytes"));
  }
  return std::unique_ptr<SharedBuffer>(
      new SharedBuffer(fd.release(), static_cast<char*>(address), static_cast<size_t>(bytes)));
}

absl::StatusOr<std::string> SharedBuffer::Register(const std::string& path) {
  absl::StatusOr<Fd> socket = Connect(path);
  if (!socket.ok()) return socket.status();
  if (!SendHello(socket->get(), fd_, size_)) return Unavailable("write to", path);
  absl::StatusOr<std::string> handle = ReadAnswer(socket->get(), path);
  if (handle.ok()) {
    const std::lock_guard<std::mutex> lock(connections_->mutex);
    connections_->sockets.push_back(*std::move(socket));
  }
  return handle;
}

}  // namespace semshare::client
