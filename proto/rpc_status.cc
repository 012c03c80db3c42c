#include "proto/rpc_status.h"

#include <string>

#include "absl/strings/string_view.h"

namespace semshare {
namespace {

// Both enums follow google.rpc.Code; a number outside of it becomes UNKNOWN.
constexpr int kLargestCode = 16;

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const int code = static_cast<int>(status.code());
  const auto known = code > 0 && code <= kLargestCode ? static_cast<grpc::StatusCode>(code)
                                                      : grpc::StatusCode::UNKNOWN;
  return grpc::Status(known, std::string(status.message().data(), status.message().size()));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int code = static_cast<int>(status.error_code());
  const auto known = code > 0 && code <= kLargestCode ? static_cast<absl::StatusCode>(code)
                                                      : absl::StatusCode::kUnknown;
  return absl::Status(
      known, absl::string_view(status.error_message().data(), status.error_message().size()));
}

}  // namespace semshare
