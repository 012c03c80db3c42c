#include "server/transport/shm_socket.h"

#include <sys/stat.h>

#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/shm_wire.h"
#include "tests/storage/temp_dir.h"
#include "tests/testing/late_backend.h"
#include "tests/testing/shared_memory.h"

namespace semshare {
namespace {

using ::testing::HasSubstr;
using testing::SharedMemory;
using testing::ShmConnection;
using testing::TempDir;

constexpr int64_t kBytes = 1 << 16;

// A message, and how many descriptors come with it.
struct Case {
  std::string message;
  int files;
};

// Each is answered with INVALID_ARGUMENT, and the connection stays.
void ExpectRefused(ShmConnection& connection, const SharedMemory& memory,
                   const std::vector<Case>& cases) {
  for (const Case& each : cases) {
    const std::string bytes = connection.Exchange(each.message, memory.fd(), each.files);
    ShmAnswer answer;
    ASSERT_EQ(bytes.size(), sizeof(answer));
    std::memcpy(&answer, bytes.data(), sizeof(answer));
    EXPECT_EQ(answer.code, static_cast<uint32_t>(absl::StatusCode::kInvalidArgument))
        << answer.message;
  }
}

class ShmSocketTest : public ::testing::Test {
 protected:
  std::string path() const { return dir_.path() + "/shm.sock"; }
  // The socket's thread notices a hang-up on its own: asks until it has.
  int64_t RegionsAfter(int64_t expected) {
    while (regions_.stats().regions != expected) std::this_thread::yield();
    return regions_.stats().regions;
  }

  const TempDir dir_;
  const std::unique_ptr<LateBackend> backend_ = NewLateBackend();
  RegionTable regions_{{.max_regions = 3}, backend_.get()};
  std::unique_ptr<ShmSocket> socket_ = *ShmSocket::Start({path(), "a", 2}, &regions_);
};

TEST_F(ShmSocketTest, ARegionLivesAsLongAsItsConnection) {
  const SharedMemory memory(kBytes);
  std::string handle;
  {
    ShmConnection connection(path());
    ASSERT_TRUE(connection.connected());
    const auto first = connection.Register(memory);
    ASSERT_TRUE(first.ok()) << first.status();
    const auto second = connection.Register(memory);
    ASSERT_TRUE(second.ok());
    EXPECT_NE(*first, *second);
    handle = *first;
    EXPECT_TRUE(regions_.Find("a", handle).ok());
  }
  EXPECT_EQ(RegionsAfter(0), 0);
  EXPECT_FALSE(regions_.Find("a", handle).ok());
}

TEST_F(ShmSocketTest, RefusalsSayWhyAndKeepTheConnection) {
  ShmConnection connection(path());
  const SharedMemory unsealed(kBytes, 0);
  const auto refused = connection.Register(unsealed);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("must be sealed"));
  const SharedMemory memory(kBytes);
  EXPECT_TRUE(connection.Register(memory).ok());
}

TEST_F(ShmSocketTest, MessagesThatAreNoneOfOursAreRefused) {
  const SharedMemory memory(kBytes);
  ShmHello hello = {};
  std::memcpy(hello.magic, kShmMagic, sizeof(kShmMagic));
  hello.bytes = kBytes;
  const std::string good(reinterpret_cast<const char*>(&hello), sizeof(hello));
  hello.bytes = UINT64_MAX;
  const std::string huge(reinterpret_cast<const char*>(&hello), sizeof(hello));
  ShmConnection connection(path());
  const std::vector<Case> cases = {
      {"x", 1},  {good.substr(1), 1}, {good + "x", 1}, {std::string(16, 'x'), 1},
      {good, 0}, {good, 2},           {good, 4},       {huge, 1}};
  ASSERT_NO_FATAL_FAILURE(ExpectRefused(connection, memory, cases));
  EXPECT_EQ(regions_.stats().regions, 0);
  EXPECT_TRUE(connection.Register(memory).ok());
}

TEST_F(ShmSocketTest, MemoryOfAGpuIsRegisteredWithoutADescriptor) {
  const SharedMemory memory(kBytes);
  ShmConnection connection(path());
  const PeerMemoryHandle whole = backend_->ExportPeerMemory(memory.fd());
  PeerMemoryHandle part = whole;
  part.offset = 4096;
  part.bytes = kBytes - 4096;
  const auto handle = connection.Register(part);
  ASSERT_TRUE(handle.ok()) << handle.status();
  EXPECT_EQ((*regions_.Find("a", *handle))->span().bytes, kBytes - 4096);
  ASSERT_TRUE(connection.Register(memory).ok());  // both kinds on one connection
  part.bytes += 1;
  const auto refused = connection.Register(part);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("allocation's 65536 bytes"));
}

TEST_F(ShmSocketTest, BadMessagesAboutAGpuAreRefused) {
  const SharedMemory memory(kBytes);
  const PeerMemoryHandle handle = backend_->ExportPeerMemory(memory.fd());
  CudaHello hello = {};
  std::memcpy(hello.magic, kCudaMagic, sizeof(kCudaMagic));
  std::memcpy(hello.device, handle.device.data(), sizeof(hello.device));
  std::memcpy(hello.memory, handle.allocation.data(), sizeof(hello.memory));
  std::memcpy(hello.event, handle.event.data(), sizeof(hello.event));
  hello.bytes = kBytes;
  const auto bytes_of = [](const CudaHello& message) {
    return std::string(reinterpret_cast<const char*>(&message), sizeof(message));
  };
  const std::string good = bytes_of(hello);
  CudaHello far = hello;
  far.offset = UINT64_MAX;
  CudaHello huge = hello;
  huge.bytes = UINT64_MAX;
  CudaHello empty = hello;
  empty.bytes = 0;
  CudaHello other = hello;  // the magic of the other message
  std::memcpy(other.magic, kShmMagic, sizeof(kShmMagic));
  const std::vector<Case> cases = {{good, 1},
                                   {good.substr(1), 0},
                                   {good.substr(0, good.size() - 1), 0},
                                   {good + "x", 0},
                                   {bytes_of(other), 0},
                                   {bytes_of(other), 1},
                                   {good.substr(0, sizeof(ShmHello)), 1},
                                   {bytes_of(far), 0},
                                   {bytes_of(huge), 0},
                                   {bytes_of(empty), 0}};
  ShmConnection connection(path());
  ASSERT_NO_FATAL_FAILURE(ExpectRefused(connection, memory, cases));
  EXPECT_EQ(regions_.stats().regions, 0);
  EXPECT_EQ(backend_->open_peers(), 0);
  EXPECT_TRUE(connection.Register(handle).ok());
}

// What a worker waits for before it frees the memory.
TEST_F(ShmSocketTest, TheBrokerHangsUpOnceNobodyUsesTheRegions) {
  const SharedMemory memory(kBytes);
  ShmConnection connection(path());
  const std::string handle = *connection.Register(backend_->ExportPeerMemory(memory.fd()));
  ASSERT_TRUE(connection.Register(memory).ok());
  RegionPtr used = *regions_.Find("a", handle);
  std::thread ending([&] { connection.ShutDown(); });
  EXPECT_EQ(RegionsAfter(0), 0);
  EXPECT_FALSE(regions_.Find("a", handle).ok());
  EXPECT_FALSE(connection.AtEnd());
  EXPECT_EQ(backend_->open_peers(), 1);
  used = nullptr;
  ending.join();
  EXPECT_TRUE(connection.AtEnd());
  EXPECT_EQ(backend_->open_peers(), 0);
}

// More descriptors than anyone may send are closed by the kernel, and the message refused.
TEST_F(ShmSocketTest, ManyDescriptorsLeakNothing) {
  const SharedMemory memory(kBytes);
  ShmHello hello = {};
  std::memcpy(hello.magic, kShmMagic, sizeof(kShmMagic));
  hello.bytes = kBytes;
  const std::string good(reinterpret_cast<const char*>(&hello), sizeof(hello));
  ShmConnection connection(path());
  for (int round = 0; round < 200; ++round) {
    ASSERT_FALSE(connection.Exchange(good, memory.fd(), 100).empty());
  }
  EXPECT_TRUE(connection.Register(memory).ok());
}

TEST_F(ShmSocketTest, ConnectionsAboveTheLimitWait) {
  const SharedMemory memory(kBytes);
  auto first = std::make_unique<ShmConnection>(path());
  ShmConnection second(path());
  ASSERT_TRUE(first->Register(memory).ok());
  ASSERT_TRUE(second.Register(memory).ok());
  ShmConnection third(path());
  std::thread waiting([&] { EXPECT_TRUE(third.Register(memory).ok()); });
  first = nullptr;
  waiting.join();
}

TEST_F(ShmSocketTest, TheGroupMayConnectIfTheOptionsSaySo) {
  socket_ = nullptr;
  ShmSocketOptions options{path(), "a", 2};
  options.group_access = true;
  socket_ = *ShmSocket::Start(options, &regions_);
  struct stat info;
  ASSERT_EQ(stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660u);
}

TEST_F(ShmSocketTest, OnlyTheOwnerMayConnectAndTheFileGoesAway) {
  struct stat info;
  ASSERT_EQ(stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const SharedMemory memory(kBytes);
  ShmConnection connection(path());
  ASSERT_TRUE(connection.Register(memory).ok());
  socket_ = nullptr;
  EXPECT_EQ(regions_.stats().regions, 0);
  EXPECT_NE(stat(path().c_str(), &info), 0);
}

TEST_F(ShmSocketTest, PathsThatCannotBeAreRefused) {
  EXPECT_EQ(
      ShmSocket::Start({dir_.path() + "/" + std::string(108, 'x'), "a"}, &regions_).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ShmSocket::Start({dir_.path() + "/missing/shm.sock", "a"}, &regions_).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace semshare
