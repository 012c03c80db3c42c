#include "proto/rpc_status.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "semshare/rpc/error_details.pb.h"

namespace semshare {
namespace {

// Both enums follow google.rpc.Code; a number outside of it becomes UNKNOWN.
constexpr int kLargestCode = 16;

constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

std::optional<absl::Duration> DelayFor(absl::StatusCode code) {
  if (code == absl::StatusCode::kResourceExhausted) return kExhaustedRetryDelay;
  if (code == absl::StatusCode::kUnavailable) return kUnavailableRetryDelay;
  return std::nullopt;
}

// A google.rpc.Status with a RetryInfo; empty if there is nothing to say beside code and message.
std::string Details(const absl::Status& status) {
  const std::optional<absl::Duration> delay = DelayFor(status.code());
  if (!delay) return "";
  rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(*delay));
  retry.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(*delay % absl::Seconds(1))));
  rpc::StatusDetails details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(status.message().data(), status.message().size());
  google::protobuf::Any* any = details.add_details();
  any->set_type_url(kRetryInfoUrl);
  any->set_value(retry.SerializeAsString());
  return details.SerializeAsString();
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const int code = static_cast<int>(status.code());
  const auto known = code > 0 && code <= kLargestCode ? static_cast<grpc::StatusCode>(code)
                                                      : grpc::StatusCode::UNKNOWN;
  return grpc::Status(known, std::string(status.message().data(), status.message().size()),
                      Details(status));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int code = static_cast<int>(status.error_code());
  const auto known = code > 0 && code <= kLargestCode ? static_cast<absl::StatusCode>(code)
                                                      : absl::StatusCode::kUnknown;
  absl::Status translated(
      known, absl::string_view(status.error_message().data(), status.error_message().size()));
  rpc::StatusDetails details;
  // Details come from the other side of the wire: what can't be read says nothing.
  if (status.error_details().empty() || !details.ParseFromString(status.error_details())) {
    return translated;
  }
  for (const google::protobuf::Any& any : details.details()) {
    if (any.type_url() == kRetryInfoUrl) {
      translated.SetPayload(kRetryInfoUrl, absl::Cord(any.value()));
    }
  }
  return translated;
}

std::optional<absl::Duration> RetryDelay(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryInfoUrl);
  rpc::RetryInfo retry;
  if (!payload || !retry.ParseFromString(std::string(*payload))) return std::nullopt;
  return absl::Seconds(retry.retry_delay().seconds()) +
         absl::Nanoseconds(retry.retry_delay().nanos());
}

}  // namespace semshare
