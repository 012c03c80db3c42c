#include "tests/kernels/backend_cases.h"

#include "tests/testing/late_backend.h"

namespace semshare {

std::vector<BackendCase> AllBackends() {
  return {
      {"Cpu",
       [] {
         return *NewCpuBackend({4, 1});
       }},
      {"CpuTwoThreads",
       [] {
         return *NewCpuBackend({4, 2});
       }},
      // Work runs only when it is waited for: a missing wait cannot pass by luck.
      {"Late",
       []() -> std::unique_ptr<Backend> {
         return NewLateBackend({4, absl::InfiniteDuration()});
       }},
  };
}

BackendTest::BackendTest()
    : backend_(GetParam().make()), lane_(*backend_->AcquireLane(absl::ZeroDuration())) {}

absl::Status BackendTest::Finish() {
  const absl::StatusOr<Event> event = backend_->Record(lane_);
  if (!event.ok()) return event.status();
  const absl::Status status = event->Wait();
  EXPECT_TRUE(event->Done());
  return status;
}

Buffer BackendTest::NewDeviceMemory(int64_t bytes) {
  absl::StatusOr<Buffer> buffer = backend_->Allocate(MemoryKind::kDevice, bytes);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  return *std::move(buffer);
}

void BackendTest::CopyIn(MemorySpan device, const void* from, int64_t bytes) {
  const MemorySpan source = HostSpan(static_cast<const char*>(from), bytes);
  EXPECT_EQ(backend_->EnqueueCopy(lane_, device.Sub(0, bytes), source), absl::OkStatus());
  EXPECT_EQ(Finish(), absl::OkStatus());
}

void BackendTest::CopyOut(MemorySpan device, void* to, int64_t bytes) {
  const MemorySpan destination = HostSpan(static_cast<char*>(to), bytes);
  EXPECT_EQ(backend_->EnqueueCopy(lane_, destination, device.Sub(0, bytes)), absl::OkStatus());
  EXPECT_EQ(Finish(), absl::OkStatus());
}

}  // namespace semshare
