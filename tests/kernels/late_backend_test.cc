// The late backend keeps what its header promises, so that a suite which passes over it means
// something.
#include "tests/testing/late_backend.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>
#include <vector>

#include "tests/testing/shared_memory.h"

namespace semshare {
namespace {

// Nothing runs unless it is waited for.
constexpr LateBackendOptions kOnlyWhenWaited{2, absl::InfiniteDuration()};

class LateBackendTest : public ::testing::Test {
 protected:
  // Death tests start anew: a fork of a process with threads cannot start threads under
  // ThreadSanitizer.
  static void SetUpTestSuite() { ::testing::FLAGS_gtest_death_test_style = "threadsafe"; }

  absl::Status CopyFromDevice(MemorySpan device, std::vector<int32_t>& to) {
    return backend_->EnqueueCopy(lane_, HostSpan(to.data(), static_cast<int64_t>(to.size())),
                                 device);
  }

  std::unique_ptr<LateBackend> backend_ = NewLateBackend(kOnlyWhenWaited);
  Lane lane_ = *backend_->AcquireLane(absl::ZeroDuration());
  Buffer device_ = *backend_->Allocate(MemoryKind::kDevice, 400);
};

TEST_F(LateBackendTest, WorkRunsWhenItIsWaitedFor) {
  std::vector<int32_t> values(100, 7), result(100);
  ASSERT_TRUE(backend_->EnqueueCopy(lane_, device_.span(), HostSpan(values.data(), 100)).ok());
  values.assign(100, 8);  // what counts is the value when the copy runs
  ASSERT_TRUE(CopyFromDevice(device_.span(), result).ok());
  const Event event = *backend_->Record(lane_);
  EXPECT_FALSE(event.Done());
  EXPECT_EQ(result[0], 0);
  EXPECT_TRUE(event.Wait().ok());
  EXPECT_TRUE(event.Done());
  EXPECT_EQ(result, std::vector<int32_t>(100, 8));
}

TEST_F(LateBackendTest, WorkRunsAfterItsDelayWithoutAWait) {
  const std::unique_ptr<LateBackend> backend = NewLateBackend({1, absl::Milliseconds(1)});
  Lane lane = *backend->AcquireLane(absl::ZeroDuration());
  const Event event = *backend->Record(lane);
  while (!event.Done()) std::this_thread::yield();
  EXPECT_TRUE(event.Wait().ok());
}

TEST_F(LateBackendTest, TheHostCannotTouchDeviceMemory) {
  const volatile char* address = reinterpret_cast<const char*>(device_.span().address);
  EXPECT_DEATH({ [[maybe_unused]] const char value = *address; }, "");
}

TEST_F(LateBackendTest, FreeingMemoryWithPendingWorkStopsTheProcess) {
  EXPECT_DEATH(
      {
        const std::unique_ptr<LateBackend> backend = NewLateBackend(kOnlyWhenWaited);
        Lane lane = *backend->AcquireLane(absl::ZeroDuration());
        std::vector<int32_t> result(100);
        std::optional<Buffer> device(*backend->Allocate(MemoryKind::kDevice, 400));
        static_cast<void>(backend->EnqueueCopy(lane, HostSpan(result.data(), 100), device->span()));
        device.reset();
        static_cast<void>(backend->Record(lane)->Wait());
      },
      "check failed");
}

TEST_F(LateBackendTest, WorkOnAPeersMemoryThatDidNotWaitStopsTheProcess) {
  const testing::SharedMemory file(400);
  EXPECT_DEATH(
      {
        const std::unique_ptr<LateBackend> backend = NewLateBackend(kOnlyWhenWaited);
        Lane lane = *backend->AcquireLane(absl::ZeroDuration());
        const auto peer = *backend->OpenPeerMemory(backend->ExportPeerMemory(file.fd()));
        backend->HoldPeerEvent();
        std::vector<int32_t> result(100);
        static_cast<void>(backend->EnqueueCopy(lane, HostSpan(result.data(), 100), peer->span()));
        static_cast<void>(backend->Record(lane)->Wait());
      },
      "check failed");
}

TEST_F(LateBackendTest, WorkBehindAWaitRunsOnceThePeersEventIsDone) {
  const testing::SharedMemory file(400);
  const auto peer = *backend_->OpenPeerMemory(backend_->ExportPeerMemory(file.fd()));
  file.as<int32_t>()[99] = 3;
  backend_->HoldPeerEvent();
  std::vector<int32_t> result(100);
  ASSERT_TRUE(peer->EnqueueWait(lane_).ok());
  ASSERT_TRUE(CopyFromDevice(peer->span(), result).ok());
  const Event event = *backend_->Record(lane_);
  std::thread waiting([&] { EXPECT_TRUE(event.Wait().ok()); });
  while (backend_->peer_waits() == 0) std::this_thread::yield();
  EXPECT_FALSE(event.Done());
  backend_->ReleasePeerEvent();
  waiting.join();
  EXPECT_EQ(result[99], 3);
}

TEST_F(LateBackendTest, MemoryOfNobodyIsRefused) {
  std::vector<int32_t> result(100);
  MemorySpan outside = device_.span();
  outside.address += 1;
  EXPECT_EQ(CopyFromDevice(outside, result).code(), absl::StatusCode::kInvalidArgument);
}

// A device does not reach memory of the heap: the late backend must not do better.
TEST_F(LateBackendTest, OperandsInUnknownHostMemoryAreRefused) {
  std::vector<float> values(4);
  const RealignRow row{0, 0, -1, 0};
  RealignArgs args;
  args.heads = 1;
  args.width = 4;
  args.rows = HostSpan(&row, 1);
  args.row_count = 1;
  args.source = HostSpan(values.data(), 4);
  args.destination = ContiguousView(device_.span(), 1, 4, args.dtype);
  const absl::Status status = backend_->EnqueueRealign(lane_, args);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("source is host memory"), absl::string_view::npos) << status;
  const absl::StatusOr<Buffer> registered = backend_->RegisterHost(args.source);
  ASSERT_TRUE(registered.ok());
  EXPECT_EQ(backend_->EnqueueRealign(lane_, args), absl::OkStatus());
  EXPECT_TRUE(backend_->Record(lane_)->Wait().ok());
}

TEST_F(LateBackendTest, HeldWorkWaitsForItsRelease) {
  std::vector<int32_t> result(100, 1);
  backend_->HoldWork();
  ASSERT_TRUE(CopyFromDevice(device_.span(), result).ok());
  const Event event = *backend_->Record(lane_);
  std::thread waiter([&event] { EXPECT_TRUE(event.Wait().ok()); });
  EXPECT_FALSE(event.Done());
  EXPECT_EQ(result[0], 1);
  backend_->ReleaseWork();
  waiter.join();
  EXPECT_EQ(result[0], 0);
}

TEST_F(LateBackendTest, AFailureSurfacesInTheEventAndSkipsLaterWork) {
  std::vector<int32_t> result(100, 1);
  const Event before = *backend_->Record(lane_);
  backend_->FailNext(LateOp::kCopy, absl::DataLossError("first"));
  backend_->FailNext(LateOp::kCopy, absl::InternalError("second"));
  EXPECT_TRUE(CopyFromDevice(device_.span(), result).ok());
  EXPECT_TRUE(CopyFromDevice(device_.span(), result).ok());
  EXPECT_TRUE(CopyFromDevice(device_.span(), result).ok());
  const Event after = *backend_->Record(lane_);
  EXPECT_EQ(after.Wait(), absl::DataLossError("first"));
  EXPECT_EQ(after.Wait(), absl::DataLossError("first"));
  EXPECT_TRUE(before.Wait().ok());
  EXPECT_EQ(result[0], 1);
}

TEST_F(LateBackendTest, TheNextBorrowerDoesNotSeeTheError) {
  const std::unique_ptr<LateBackend> backend = NewLateBackend({1, absl::InfiniteDuration()});
  std::vector<int32_t> values(4);
  std::vector<int32_t> result(4, 1);
  Event failed;
  {
    Lane lane = *backend->AcquireLane(absl::ZeroDuration());
    backend->FailNext(LateOp::kCopy, absl::InternalError("late"));
    ASSERT_TRUE(
        backend->EnqueueCopy(lane, HostSpan(result.data(), 4), HostSpan(values.data(), 4)).ok());
    failed = *backend->Record(lane);
  }  // returned with its work pending
  Lane lane = *backend->AcquireLane(absl::ZeroDuration());
  ASSERT_TRUE(
      backend->EnqueueCopy(lane, HostSpan(result.data(), 4), HostSpan(values.data(), 4)).ok());
  EXPECT_TRUE(backend->Record(lane)->Wait().ok());
  EXPECT_EQ(result[0], 0);
  EXPECT_EQ(failed.Wait().code(), absl::StatusCode::kInternal);
}

TEST_F(LateBackendTest, RefusalsAndFailuresThatCannotWait) {
  std::vector<int32_t> result(100);
  backend_->RefuseNext(LateOp::kCopy, absl::UnavailableError("refused"));
  EXPECT_EQ(CopyFromDevice(device_.span(), result).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(CopyFromDevice(device_.span(), result).ok());
  backend_->FailNext(LateOp::kAllocate, absl::ResourceExhaustedError("full"));
  EXPECT_FALSE(backend_->Allocate(MemoryKind::kHost, 1).ok());
  backend_->FailNext(LateOp::kAcquireLane, absl::ResourceExhaustedError("busy"));
  EXPECT_FALSE(backend_->AcquireLane(absl::ZeroDuration()).ok());
  EXPECT_TRUE(backend_->AcquireLane(absl::ZeroDuration()).ok());
  backend_->FailNext(LateOp::kRecord, absl::InternalError("no event"));
  EXPECT_FALSE(backend_->Record(lane_).ok());
  EXPECT_TRUE(backend_->Record(lane_)->Wait().ok());
}

TEST_F(LateBackendTest, CountsAllocations) {
  EXPECT_EQ(backend_->allocations(), 1);
  EXPECT_EQ(backend_->allocated_bytes(), 400);
  {
    const Buffer host = *backend_->Allocate(MemoryKind::kHost, 100);
    EXPECT_EQ(backend_->allocations(), 2);
    EXPECT_EQ(backend_->allocated_bytes(), 500);
  }
  EXPECT_EQ(backend_->allocations(), 2);
  EXPECT_EQ(backend_->allocated_bytes(), 400);
}

TEST_F(LateBackendTest, EventsOutliveTheBackend) {
  std::vector<int32_t> result(100, 1);
  ASSERT_TRUE(CopyFromDevice(device_.span(), result).ok());
  const Event event = *backend_->Record(lane_);
  backend_.reset();  // runs what is pending
  EXPECT_TRUE(event.Done());
  EXPECT_TRUE(event.Wait().ok());
  EXPECT_EQ(result[0], 0);
}

}  // namespace
}  // namespace semshare
