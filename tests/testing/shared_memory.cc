#include "tests/testing/shared_memory.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "kernels/base/status_macros.h"
#include "proto/shm_wire.h"

namespace semshare::testing {

SharedMemory::SharedMemory(int64_t bytes, int seals, bool allocated) : bytes_(bytes) {
  fd_ = memfd_create("semshare-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  SEMSHARE_CHECK(fd_ >= 0 && ftruncate(fd_, bytes) == 0);
  if (allocated) SEMSHARE_CHECK(posix_fallocate(fd_, 0, bytes) == 0);
  address_ = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  SEMSHARE_CHECK(address_ != MAP_FAILED);
  // A seal against writing needs a file that nobody has mapped for it.
  if ((seals & F_SEAL_WRITE) != 0) munmap(address_, static_cast<size_t>(bytes));
  SEMSHARE_CHECK(seals == 0 || fcntl(fd_, F_ADD_SEALS, seals) == 0);
  if ((seals & F_SEAL_WRITE) != 0) address_ = nullptr;
}

SharedMemory::~SharedMemory() {
  if (address_ != nullptr) munmap(address_, static_cast<size_t>(bytes_));
  close(fd_);
}

ShmConnection::ShmConnection(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  SEMSHARE_CHECK(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  socket_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  SEMSHARE_CHECK(socket_ >= 0);
  connected_ = connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

ShmConnection::~ShmConnection() { close(socket_); }

std::string ShmConnection::Exchange(const std::string& message, int fd, int count) {
  std::string text = message;
  iovec part = {text.data(), text.size()};
  std::vector<char> control(CMSG_SPACE(static_cast<size_t>(count) * sizeof(int)));
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (count > 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(static_cast<size_t>(count) * sizeof(int));
    const std::vector<int> files(static_cast<size_t>(count), fd);
    std::memcpy(CMSG_DATA(rights), files.data(), files.size() * sizeof(int));
  }
  if (sendmsg(socket_, &header, MSG_NOSIGNAL) < 0) return "";
  char answer[512];
  const ssize_t bytes = recv(socket_, answer, sizeof(answer), 0);
  return bytes > 0 ? std::string(answer, static_cast<size_t>(bytes)) : "";
}

absl::StatusOr<std::string> ShmConnection::HandleOf(const std::string& bytes) const {
  ShmAnswer answer;
  if (bytes.size() != sizeof(answer)) return absl::UnavailableError("no answer");
  std::memcpy(&answer, bytes.data(), sizeof(answer));
  if (answer.code != 0) {
    return absl::Status(static_cast<absl::StatusCode>(answer.code), answer.message);
  }
  return std::string(answer.handle, sizeof(answer.handle));
}

absl::StatusOr<std::string> ShmConnection::Register(const SharedMemory& memory) {
  ShmHello hello = {};
  std::memcpy(hello.magic, kShmMagic, sizeof(kShmMagic));
  hello.bytes = static_cast<uint64_t>(memory.bytes());
  return HandleOf(
      Exchange(std::string(reinterpret_cast<const char*>(&hello), sizeof(hello)), memory.fd(), 1));
}

absl::StatusOr<std::string> ShmConnection::Register(const PeerMemoryHandle& memory) {
  CudaHello hello = {};
  std::memcpy(hello.magic, kCudaMagic, sizeof(kCudaMagic));
  std::memcpy(hello.device, memory.device.data(), sizeof(hello.device));
  std::memcpy(hello.memory, memory.allocation.data(), sizeof(hello.memory));
  std::memcpy(hello.event, memory.event.data(), sizeof(hello.event));
  hello.offset = static_cast<uint64_t>(memory.offset);
  hello.bytes = static_cast<uint64_t>(memory.bytes);
  return HandleOf(
      Exchange(std::string(reinterpret_cast<const char*>(&hello), sizeof(hello)), -1, 0));
}

void ShmConnection::ShutDown() {
  SEMSHARE_CHECK(shutdown(socket_, SHUT_WR) == 0);
  char byte;
  SEMSHARE_CHECK(recv(socket_, &byte, 1, 0) == 0);
}

bool ShmConnection::AtEnd() const {
  char byte;
  return recv(socket_, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

}  // namespace semshare::testing
