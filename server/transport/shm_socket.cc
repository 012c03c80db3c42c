#include "server/transport/shm_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "proto/shm_wire.h"

namespace semshare {
namespace {

// Owns a file descriptor.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

struct Connection {
  std::shared_ptr<const Fd> socket;  // also of the regions: closed when all are unmapped
  std::vector<std::string> regions;
};

absl::Status Unavailable(std::string_view what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat("shm_socket: can't ",
                                             absl::string_view(what.data(), what.size()), " ", path,
                                             ": ", std::strerror(errno)));
}

absl::StatusOr<Fd> Listen(const std::string& path, mode_t mode) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("shm_socket: the path ", path, " has ",
                                                   path.size(), " bytes, not 1..",
                                                   sizeof(address.sun_path) - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.valid()) return Unavailable("make a socket for", path);
  unlink(path.c_str());
  // Narrowed before anybody can connect: the mode is the access control.
  if (fchmod(listener.get(), 0600) != 0 ||
      bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      chmod(path.c_str(), mode) != 0 || listen(listener.get(), 64) != 0) {
    return Unavailable("listen on", path);
  }
  return listener;
}

// One message and the descriptors that came with it.
struct Received {
  ssize_t bytes = 0;  // as sent, which may be more than fit
  char message[std::max(sizeof(ShmHello), sizeof(CudaHello))] = {};
  std::vector<Fd> files;
};

Received Receive(int socket) {
  Received received;
  iovec part = {received.message, sizeof(received.message)};
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  received.bytes = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT | MSG_TRUNC);
  if (received.bytes < 0) return received;
  for (cmsghdr* part_of = CMSG_FIRSTHDR(&message); part_of != nullptr;
       part_of = CMSG_NXTHDR(&message, part_of)) {
    if (part_of->cmsg_level != SOL_SOCKET || part_of->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part_of->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(part_of) + i * sizeof(int), sizeof(fd));
      received.files.emplace_back(fd);
    }
  }
  return received;
}

// Whether it is a `Message`, which is then filled in.
template <typename Message>
bool Take(const Received& received, const char (&magic)[8], Message* message) {
  if (received.bytes != sizeof(Message)) return false;
  std::memcpy(message, received.message, sizeof(Message));
  return std::memcmp(message->magic, magic, sizeof(magic)) == 0;
}

absl::Status CheckFiles(const Received& received, size_t expected) {
  if (received.files.size() == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("region: expected ", expected, " file descriptors"));
}

absl::Status CheckSize(uint64_t bytes) {
  if (bytes <= static_cast<uint64_t>(INT64_MAX)) return absl::OkStatus();
  return absl::InvalidArgumentError("region: too large");
}

PeerMemoryHandle ToPeerMemoryHandle(const CudaHello& hello) {
  PeerMemoryHandle handle;
  static_assert(sizeof(hello.device) == sizeof(handle.device));
  static_assert(sizeof(hello.memory) == sizeof(handle.allocation));
  static_assert(sizeof(hello.event) == sizeof(handle.event));
  std::memcpy(handle.device.data(), hello.device, sizeof(hello.device));
  std::memcpy(handle.allocation.data(), hello.memory, sizeof(hello.memory));
  std::memcpy(handle.event.data(), hello.event, sizeof(hello.event));
  handle.offset = static_cast<int64_t>(hello.offset);
  handle.bytes = static_cast<int64_t>(hello.bytes);
  return handle;
}

ShmAnswer MakeAnswer(const absl::StatusOr<std::string>& handle) {
  ShmAnswer answer = {};
  std::memcpy(answer.magic, kShmMagic, sizeof(kShmMagic));
  answer.code = static_cast<uint32_t>(handle.status().code());
  if (handle.ok()) {
    std::memcpy(answer.handle, handle->data(), sizeof(answer.handle));
  } else {
    const absl::string_view text = handle.status().message();
    std::memcpy(answer.message, text.data(), std::min(text.size(), sizeof(answer.message) - 1));
  }
  return answer;
}

class ShmSocketImpl final : public ShmSocket {
 public:
  ShmSocketImpl(const ShmSocketOptions& options, RegionTable* regions, Fd listener, Fd wake)
      : options_(options),
        regions_(regions),
        listener_(std::move(listener)),
        wake_(std::move(wake)),
        thread_([this] { Run(); }) {}

  ~ShmSocketImpl() override {
    const uint64_t one = 1;
    // An eventfd takes any count below its maximum.
    SEMSHARE_CHECK(write(wake_.get(), &one, sizeof(one)) == sizeof(one));
    thread_.join();
    for (Connection& connection : connections_) Close(&connection);
    unlink(options_.path.c_str());
  }

 private:
  void Run() {
    while (true) {
      std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      // A full house stops accepting; the backlog waits.
      if (static_cast<int>(connections_.size()) >= options_.max_connections) polled[1].events = 0;
      for (const Connection& each : connections_) {
        polled.push_back({each.socket->get(), POLLIN, 0});
      }
      if (poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) return;
      if (polled[0].revents != 0) return;
      // From the back, so that those in front keep their places.
      for (size_t i = connections_.size(); i-- > 0;) {
        if (polled[i + 2].revents == 0 || Serve(&connections_[i])) continue;
        Close(&connections_[i]);
        connections_.erase(connections_.begin() + static_cast<ptrdiff_t>(i));
      }
      if (polled[1].revents != 0) Accept();
    }
  }

  void Accept() {
    Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) return;
    connections_.push_back({std::make_shared<const Fd>(std::move(socket)), {}});
  }

  // Answers one message; false once the connection is over.
  bool Serve(Connection* connection) {
    const Received received = Receive(connection->socket->get());
    if (received.bytes < 0) return errno == EAGAIN || errno == EINTR;
    if (received.bytes == 0) return false;
    const absl::StatusOr<std::string> handle = Register(received, connection->socket);
    if (handle.ok()) connection->regions.push_back(*handle);
    const ShmAnswer answer = MakeAnswer(handle);
    // A peer that does not take its answer is not waited for.
    return send(connection->socket->get(), &answer, sizeof(answer), MSG_NOSIGNAL | MSG_DONTWAIT) ==
           sizeof(answer);
  }

  absl::StatusOr<std::string> Register(const Received& received,
                                       const std::shared_ptr<const Fd>& socket) {
    ShmHello shared;
    CudaHello cuda;
    if (Take(received, kShmMagic, &shared)) {
      SEMSHARE_RETURN_IF_ERROR(CheckFiles(received, 1));
      SEMSHARE_RETURN_IF_ERROR(CheckSize(shared.bytes));
      return regions_->Add(options_.tenant, received.files[0].get(),
                           static_cast<int64_t>(shared.bytes), socket);
    }
    if (Take(received, kCudaMagic, &cuda)) {
      SEMSHARE_RETURN_IF_ERROR(CheckFiles(received, 0));
      SEMSHARE_RETURN_IF_ERROR(CheckSize(cuda.offset));
      SEMSHARE_RETURN_IF_ERROR(CheckSize(cuda.bytes));
      return regions_->AddPeer(options_.tenant, ToPeerMemoryHandle(cuda), socket);
    }
    return absl::InvalidArgumentError("region: not a message of this version");
  }

  void Close(Connection* connection) {
    for (const std::string& handle : connection->regions) regions_->Remove(handle);
    connection->regions.clear();
  }

  const ShmSocketOptions options_;
  RegionTable* const regions_;
  const Fd listener_;
  const Fd wake_;
  std::vector<Connection> connections_;  // the thread's, until it is joined
  std::thread thread_;                   // last: it uses all of the above
};

}  // namespace

absl::StatusOr<std::unique_ptr<ShmSocket>> ShmSocket::Start(const ShmSocketOptions& options,
                                                            RegionTable* regions) {
  if (options.max_connections < 1) {
    return absl::InvalidArgumentError("max_connections: must be positive");
  }
  SEMSHARE_ASSIGN_OR_RETURN(Fd listener, Listen(options.path, options.group_access ? 0660 : 0600));
  Fd wake(eventfd(0, EFD_CLOEXEC));
  if (!wake.valid()) return Unavailable("make an eventfd for", options.path);
  return std::unique_ptr<ShmSocket>(
      new ShmSocketImpl(options, regions, std::move(listener), std::move(wake)));
}

}  // namespace semshare
