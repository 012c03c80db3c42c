// The backends that tests of storage/ run over. Thread-safe: a pure function.
#ifndef SEMSHARE_TESTS_STORAGE_BACKENDS_H_
#define SEMSHARE_TESTS_STORAGE_BACKENDS_H_

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "tests/testing/late_backend.h"

namespace semshare::testing {

struct BackendCase {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> make;
};

inline std::ostream& operator<<(std::ostream& out, const BackendCase& value) {
  return out << value.name;
}

inline std::vector<BackendCase> BackendCases() {
  const auto make_cpu = [] { return NewCpuBackend(CpuBackendOptions{.lanes = 8}); };
  // Nothing runs before it is waited for, and the host can not touch device memory.
  const auto make_late = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
    return std::unique_ptr<Backend>(
        NewLateBackend({.lanes = 8, .delay = absl::InfiniteDuration()}));
  };
  return {{"Cpu", make_cpu}, {"Late", make_late}};
}

}  // namespace semshare::testing

#endif  // SEMSHARE_TESTS_STORAGE_BACKENDS_H_
