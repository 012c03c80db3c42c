// Conformance of what is not a kernel: memory, lanes, events, copies, checksums.
#include "kernels/backend.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <numeric>
#include <thread>

#include "kernels/checks.h"
#include "tests/kernels/backend_cases.h"

namespace semshare {
namespace {

using BackendConformanceTest = BackendTest;

TEST_P(BackendConformanceTest, AllocatesAlignedMemoryAndRefusesNonsense) {
  for (const MemoryKind kind : {MemoryKind::kDevice, MemoryKind::kHost}) {
    for (const int64_t bytes : {int64_t{1}, int64_t{4097}, int64_t{5} << 20}) {
      const absl::StatusOr<Buffer> buffer = backend_->Allocate(kind, bytes);
      ASSERT_TRUE(buffer.ok());
      EXPECT_EQ(buffer->span().bytes, bytes);
      EXPECT_EQ(buffer->span().kind, kind);
      EXPECT_EQ(buffer->span().address % 256, 0U);
    }
    EXPECT_EQ(backend_->Allocate(kind, 0).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(backend_->Allocate(kind, -1).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(backend_->Allocate(MemoryKind::kHost, int64_t{1} << 50).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_P(BackendConformanceTest, RegistersHostMemory) {
  const int64_t bytes = 3 * 4096;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const MemorySpan span = HostSpan(static_cast<char*>(memory), bytes);
  {
    const absl::StatusOr<Buffer> registered = backend_->RegisterHost(span);
    ASSERT_TRUE(registered.ok()) << registered.status();
    EXPECT_EQ(registered->span().address, span.address);
    EXPECT_EQ(registered->span().bytes, bytes);
    std::memset(memory, 7, bytes);
    const Buffer device = NewDeviceMemory(bytes);
    ASSERT_EQ(backend_->EnqueueCopy(lane_, device.span(), span), absl::OkStatus());
    ASSERT_EQ(Finish(), absl::OkStatus());
    EXPECT_EQ(Download<uint8_t>(device, bytes), std::vector<uint8_t>(bytes, 7));
  }
  EXPECT_TRUE(backend_->RegisterHost(span).ok());  // given back, it can be registered again
  EXPECT_EQ(backend_->RegisterHost({}).status().code(), absl::StatusCode::kInvalidArgument);
  const Buffer device = NewDeviceMemory(64);
  EXPECT_EQ(backend_->RegisterHost(device.span()).status().code(),
            absl::StatusCode::kInvalidArgument);
  munmap(memory, bytes);
}

TEST_P(BackendConformanceTest, RefusesPeerMemoryThatIsNotItsDevices) {
  PeerMemoryHandle handle;
  handle.bytes = 4096;
  const absl::Status status = backend_->OpenPeerMemory(handle).status();
  EXPECT_EQ(status.code(), backend_->info().opens_peer_memory
                               ? absl::StatusCode::kFailedPrecondition
                               : absl::StatusCode::kUnimplemented)
      << status;
}

TEST_P(BackendConformanceTest, LanesAreBounded) {
  std::vector<Lane> lanes;
  for (int i = 1; i < 4; ++i) lanes.push_back(*backend_->AcquireLane(absl::ZeroDuration()));
  EXPECT_EQ(backend_->AcquireLane(absl::ZeroDuration()).status().code(),
            absl::StatusCode::kResourceExhausted);
  lanes.pop_back();
  EXPECT_TRUE(backend_->AcquireLane(absl::ZeroDuration()).ok());
}

TEST_P(BackendConformanceTest, CopiesAndChecksums) {
  std::vector<uint8_t> bytes(3 << 20);
  std::iota(bytes.begin(), bytes.end(), uint8_t{0});
  const Buffer device = Upload(bytes);
  const Buffer other = NewDeviceMemory(device.span().bytes);
  ASSERT_EQ(backend_->EnqueueCopy(lane_, other.span(), device.span()), absl::OkStatus());
  EXPECT_EQ(Download<uint8_t>(other, device.span().bytes), bytes);
  // Reference values of XXH3-64 with seed 0, from the xxHash distribution.
  const std::string text = "abc";
  const std::vector<MemorySpan> spans = {MemorySpan{}, HostSpan(text.data(), 3), device.span(),
                                         other.span()};
  uint64_t digests[4] = {};
  ASSERT_EQ(backend_->EnqueueChecksum(lane_, spans, HostSpan(digests, 4)), absl::OkStatus());
  ASSERT_EQ(Finish(), absl::OkStatus());
  EXPECT_EQ(digests[0], 0x2D06800538D394C2U);
  EXPECT_EQ(digests[1], 0x78AF5F94892F3950U);
  EXPECT_EQ(digests[2], digests[3]);
  EXPECT_NE(digests[2], digests[0]);
}

TEST_P(BackendConformanceTest, BadCopiesAreRefused) {
  const Buffer device = NewDeviceMemory(4096);
  EXPECT_EQ(backend_->EnqueueCopy(lane_, device.span().Sub(0, 8), device.span().Sub(8, 7)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend_->EnqueueCopy(lane_, device.span().Sub(0, 8), device.span().Sub(7, 8)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend_->EnqueueChecksum(lane_, {}, device.span()).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(BackendConformanceTest, EventsNameTheirPoint) {
  const std::vector<int32_t> ones(1000, 1);
  const std::vector<int32_t> twos(1000, 2);
  const Buffer device = NewDeviceMemory(4000);
  std::vector<int32_t> first(1000), second(1000);
  ASSERT_TRUE(backend_->EnqueueCopy(lane_, device.span(), HostSpan(ones.data(), 1000)).ok());
  ASSERT_TRUE(backend_->EnqueueCopy(lane_, HostSpan(first.data(), 1000), device.span()).ok());
  const absl::StatusOr<Event> after_first = backend_->Record(lane_);
  ASSERT_TRUE(backend_->EnqueueCopy(lane_, device.span(), HostSpan(twos.data(), 1000)).ok());
  ASSERT_TRUE(backend_->EnqueueCopy(lane_, HostSpan(second.data(), 1000), device.span()).ok());
  const absl::StatusOr<Event> after_second = backend_->Record(lane_);
  ASSERT_TRUE(after_first.ok() && after_second.ok());
  EXPECT_TRUE(after_first->Wait().ok());
  EXPECT_EQ(first, ones);
  const Event copy = *after_second;
  EXPECT_TRUE(copy.Wait().ok());
  EXPECT_TRUE(copy.Done() && after_second->Done() && after_first->Done());
  EXPECT_EQ(second, twos);
}

TEST_P(BackendConformanceTest, LanesRunIndependentlyOnSeveralThreads) {
  std::vector<std::thread> threads;
  std::vector<absl::Status> results(3);
  std::vector<std::vector<int32_t>> copies(3);
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([this, t, &results, &copies] {
      absl::StatusOr<Lane> lane = backend_->AcquireLane(absl::Seconds(60));
      const std::vector<int32_t> values(50000, t);
      copies[static_cast<size_t>(t)].resize(values.size());
      absl::StatusOr<Buffer> device = backend_->Allocate(MemoryKind::kDevice, 200000);
      results[static_cast<size_t>(t)] =
          backend_->EnqueueCopy(*lane, device->span(), HostSpan(values.data(), 50000));
      results[static_cast<size_t>(t)].Update(backend_->EnqueueCopy(
          *lane, HostSpan(copies[static_cast<size_t>(t)].data(), 50000), device->span()));
      results[static_cast<size_t>(t)].Update(backend_->Record(*lane)->Wait());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < 3; ++t) {
    EXPECT_EQ(results[static_cast<size_t>(t)], absl::OkStatus());
    EXPECT_EQ(copies[static_cast<size_t>(t)], std::vector<int32_t>(50000, t));
  }
}

SEMSHARE_INSTANTIATE_BACKENDS(BackendConformanceTest);

TEST(MemorySpanTest, SubAndHost) {
  int32_t values[4] = {1, 2, 3, 4};
  const MemorySpan span = HostSpan(values, 4);
  EXPECT_EQ(span.bytes, 16);
  EXPECT_EQ(span.Sub(8, 8).host(), reinterpret_cast<std::byte*>(values + 2));
  EXPECT_EQ(span.Sub(16, 0).bytes, 0);
  EXPECT_DEATH(span.Sub(8, 9), "check failed");
  EXPECT_DEATH(span.Sub(-1, 1), "check failed");
  const MemorySpan device{1, 1, MemoryKind::kDevice};
  EXPECT_DEATH(device.host(), "check failed");
}

TEST(BufferTest, FreesOnceWhenMoved) {
  int freed = 0;
  {
    Buffer first(MemorySpan{1, 2, MemoryKind::kHost}, [&freed](MemorySpan span) {
      EXPECT_EQ(span.bytes, 2);
      ++freed;
    });
    Buffer second = std::move(first);
    EXPECT_EQ(second.span().bytes, 2);
    EXPECT_EQ(first.span().bytes, 0);  // NOLINT(bugprone-use-after-move): moved-from is empty
    second = Buffer();
    EXPECT_EQ(freed, 1);
  }
  EXPECT_EQ(freed, 1);
}

TEST(PlaneViewTest, OffsetsAreSixtyFourBits) {
  PlaneView view;
  view.block_tokens = 16;
  view.block_stride = int64_t{3} << 30;
  view.token_stride = int64_t{1} << 27;
  view.head_stride = -256;
  view.element_stride = 2;
  EXPECT_EQ(view.Offset(16 * 5 + 3, 4, 7), (int64_t{15} << 30) + (int64_t{3} << 27) - 1024 + 14);
  static_assert(PlaneView{{}, 1, int64_t{1} << 32, 0, 0, 0}.Offset(3, 0, 0) == int64_t{3} << 32);
}

TEST(CpuBackendOptionsTest, Limits) {
  EXPECT_TRUE(NewCpuBackend({1, 1}).ok());
  EXPECT_TRUE(NewCpuBackend({256, 64}).ok());
  for (const CpuBackendOptions& options : {CpuBackendOptions{0, 1}, CpuBackendOptions{257, 1},
                                           CpuBackendOptions{1, 0}, CpuBackendOptions{1, 65}}) {
    EXPECT_EQ(NewCpuBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace semshare
