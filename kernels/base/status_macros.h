// Early returns for absl::Status and absl::StatusOr, and a check for programmer errors that stays
// on in release builds. Thread-safe: no state.
#ifndef SEMSHARE_KERNELS_BASE_STATUS_MACROS_H_
#define SEMSHARE_KERNELS_BASE_STATUS_MACROS_H_

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define SEMSHARE_RETURN_IF_ERROR(expr)                                      \
  do {                                                                      \
    if (::absl::Status semshare_status_ = (expr); !semshare_status_.ok()) { \
      return semshare_status_;                                              \
    }                                                                       \
  } while (false)

#define SEMSHARE_CONCAT_INNER_(a, b) a##b
#define SEMSHARE_CONCAT_(a, b) SEMSHARE_CONCAT_INNER_(a, b)

// SEMSHARE_ASSIGN_OR_RETURN(auto value, Function());
#define SEMSHARE_ASSIGN_OR_RETURN(lhs, expr) \
  SEMSHARE_ASSIGN_OR_RETURN_IMPL_(SEMSHARE_CONCAT_(semshare_statusor_, __LINE__), lhs, expr)

#define SEMSHARE_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expr) \
  auto statusor = (expr);                                    \
  if (!statusor.ok()) return std::move(statusor).status();   \
  lhs = std::move(statusor).value()

// Stops the process when a condition that only a bug can break does not hold. Never used on input.
#define SEMSHARE_CHECK(condition)                                                        \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

#endif  // SEMSHARE_KERNELS_BASE_STATUS_MACROS_H_
