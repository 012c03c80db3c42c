// The backends that tests of matching run over: the CPU's, and one that completes late and whose
// device memory the host can not touch.
// Thread-safe: no state.
#ifndef SEMSHARE_TESTS_SERVER_MATCH_BACKENDS_H_
#define SEMSHARE_TESTS_SERVER_MATCH_BACKENDS_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "kernels/backend.h"
#include "kernels/base/status_macros.h"
#include "tests/testing/late_backend.h"

namespace semshare {

enum class TestBackend { kCpu, kLate };

inline std::unique_ptr<Backend> NewTestBackend(TestBackend kind) {
  if (kind == TestBackend::kLate) return NewLateBackend({4, absl::InfiniteDuration()});
  absl::StatusOr<std::unique_ptr<Backend>> backend = NewCpuBackend(CpuBackendOptions());
  SEMSHARE_CHECK(backend.ok());
  return *std::move(backend);
}

inline std::string BackendName(const testing::TestParamInfo<TestBackend>& info) {
  return info.param == TestBackend::kCpu ? "Cpu" : "Late";
}

}  // namespace semshare

#endif  // SEMSHARE_TESTS_SERVER_MATCH_BACKENDS_H_
