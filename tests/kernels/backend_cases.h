// BackendTest: the fixture of the conformance suite. Every test of it runs over every backend: the
// CPU with one thread and with two, the late backend, whose device memory no test can touch, and
// the CUDA backend. A backend that this machine or this build cannot make is skipped with its
// reason; the number of tests so skipped is printed at the end.
//
// Not thread-safe.
#ifndef SEMSHARE_TESTS_KERNELS_BACKEND_CASES_H_
#define SEMSHARE_TESTS_KERNELS_BACKEND_CASES_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace semshare {

struct BackendCase {
  std::string name;
  absl::StatusOr<std::unique_ptr<Backend>> (*make)();
};

std::vector<BackendCase> AllBackends();

class BackendTest : public testing::TestWithParam<BackendCase> {
 protected:
  BackendTest();
  // Skips the test if its backend could not be made.
  void SetUp() override;

  // Waits for everything on the lane; returns its first error.
  absl::Status Finish();
  Buffer NewDeviceMemory(int64_t bytes);
  void CopyIn(MemorySpan device, const void* from, int64_t bytes);
  void CopyOut(MemorySpan device, void* to, int64_t bytes);

  // Host memory that a device reaches, with these bytes.
  Buffer NewHostMemory(const void* from, int64_t bytes);
  // Device memory that holds the values; at least one byte, so that empty vectors have memory.
  template <typename T>
  Buffer Upload(const std::vector<T>& values) {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(T));
    Buffer buffer = NewDeviceMemory(bytes > 0 ? bytes : 1);
    CopyIn(buffer.span(), values.data(), bytes);
    return buffer;
  }
  template <typename T>
  std::vector<T> Download(const Buffer& buffer, int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    CopyOut(buffer.span(), values.data(), count * static_cast<int64_t>(sizeof(T)));
    return values;
  }

  const absl::StatusOr<std::unique_ptr<Backend>> made_;
  Backend* const backend_;  // null where the test is skipped
  Lane lane_;
};

#define SEMSHARE_INSTANTIATE_BACKENDS(Suite)                                  \
  INSTANTIATE_TEST_SUITE_P(Backends, Suite, testing::ValuesIn(AllBackends()), \
                           [](const auto& info) { return info.param.name; })

}  // namespace semshare

#endif  // SEMSHARE_TESTS_KERNELS_BACKEND_CASES_H_
