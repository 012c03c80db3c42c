#include "tests/kernels/backend_cases.h"

#include <cstdio>
#include <cstring>
#include <map>

#include "tests/testing/late_backend.h"

namespace semshare {
namespace {

using Made = absl::StatusOr<std::unique_ptr<Backend>>;

// Prints at the end how many tests were skipped, by reason.
class SkipCounter final : public testing::Environment {
 public:
  static void Count(const absl::Status& reason) { ++Counts()[std::string(reason.message())]; }

  void TearDown() override {
    for (const auto& [reason, count] : Counts()) {
      std::printf("skipped: %s: %d tests\n", reason.c_str(), count);
    }
  }

 private:
  static std::map<std::string, int>& Counts() {
    static std::map<std::string, int> counts;
    return counts;
  }
};

const testing::Environment* const kSkipCounter =
    testing::AddGlobalTestEnvironment(new SkipCounter());

// A lane to work on, or one that nobody may use.
Lane LaneOf(Backend* backend) {
  if (backend == nullptr) return Lane(nullptr, nullptr);
  return *backend->AcquireLane(absl::ZeroDuration());
}

}  // namespace

std::vector<BackendCase> AllBackends() {
  return {
      {"Cpu",
       []() -> Made {
         return NewCpuBackend({4, 1});
       }},
      {"CpuTwoThreads",
       []() -> Made {
         return NewCpuBackend({4, 2});
       }},
      // Work runs only when it is waited for: a missing wait cannot pass by luck.
      {"Late",
       []() -> Made {
         return NewLateBackend({4, absl::InfiniteDuration()});
       }},
      // As little memory as it takes: one is made for every test.
      {"Cuda",
       []() -> Made {
         CudaBackendOptions options;
         options.staging_bytes = options.scratch_bytes = int64_t{1} << 20;
         return NewCudaBackend(options);
       }},
  };
}

BackendTest::BackendTest()
    : made_(GetParam().make()),
      backend_(made_.ok() ? made_->get() : nullptr),
      lane_(LaneOf(backend_)) {}

void BackendTest::SetUp() {
  if (backend_ != nullptr) return;
  SkipCounter::Count(made_.status());
  GTEST_SKIP() << GetParam().name << ": " << made_.status();
}

absl::Status BackendTest::Finish() {
  const absl::StatusOr<Event> event = backend_->Record(lane_);
  if (!event.ok()) return event.status();
  const absl::Status status = event->Wait();
  EXPECT_TRUE(event->Done());
  return status;
}

Buffer BackendTest::NewHostMemory(const void* from, int64_t bytes) {
  absl::StatusOr<Buffer> buffer = backend_->Allocate(MemoryKind::kHost, bytes);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  std::memcpy(buffer->span().host(), from, static_cast<size_t>(bytes));
  return *std::move(buffer);
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
