#include "client/cpp/client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/answer_checks.h"
#include "client/cpp/rpc_channel.h"
#include "client/cpp/unary_call.h"

namespace semshare::client {
namespace {

// Field 1 of both grpc.health.v1 messages: a string in the request, an enum in the response.
constexpr char kHealthServiceTag = '\x0a';
constexpr char kHealthStatusTag = '\x08';
constexpr size_t kMaxHealthServiceBytes = 127;

std::string Broker(const char* method) { return std::string(kBrokerService) + method; }
std::string Admin(const char* method) { return std::string(kAdminService) + method; }

template <typename Response>
absl::Status StatusOf(const absl::StatusOr<Response>& response) {
  return response.status();
}

}  // namespace

absl::Status ClientOptions::Validate() const {
  if (address.empty()) return absl::InvalidArgumentError("address: empty");
  for (const int64_t deadline_ms :
       {deadlines.control_ms, deadlines.find_ms, deadlines.transfer_ms, deadlines.release_ms}) {
    if (deadline_ms <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("deadlines: ", deadline_ms, " ms, must be above 0"));
    }
  }
  return absl::OkStatus();
}

Lease::Lease(std::shared_ptr<RpcChannel> channel, int64_t release_ms, v1::Match match)
    : channel_(std::move(channel)), release_ms_(release_ms), match_(std::move(match)) {}

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this == &other) return *this;
  if (held()) Release({}).IgnoreError();
  channel_ = std::move(other.channel_);
  release_ms_ = other.release_ms_;
  match_ = std::move(other.match_);
  return *this;
}

Lease::~Lease() {
  if (held()) Release({}).IgnoreError();
}

absl::Status Lease::Release(const v1::MatchOutcome& outcome) {
  const std::shared_ptr<RpcChannel> channel = std::move(channel_);
  channel_ = nullptr;
  if (channel == nullptr) return absl::FailedPreconditionError("release: no lease is held");
  v1::ReleaseMatchRequest request;
  request.set_lease_id(match_.lease_id());
  *request.mutable_outcome() = outcome;
  return StatusOf(UnaryCall<v1::ReleaseMatchResponse>(channel.get(), Broker("ReleaseMatch"),
                                                      request, release_ms_));
}

Client::Client(const ClientOptions& options)
    : deadlines_(options.deadlines), channel_(RpcChannel::Create(options.address)) {}

Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const ClientOptions& options) {
  absl::Status status = options.Validate();
  if (!status.ok()) return status;
  return std::unique_ptr<Client>(new Client(options));
}

absl::StatusOr<v1::GetServerInfoResponse> Client::ServerInfo() const {
  return UnaryCall<v1::GetServerInfoResponse>(channel_.get(), Broker("GetServerInfo"),
                                              v1::GetServerInfoRequest(), deadlines_.control_ms);
}

absl::StatusOr<bool> Client::GetModel(const std::string& fingerprint) const {
  v1::GetModelRequest request;
  request.set_fingerprint(fingerprint);
  auto response = UnaryCall<v1::GetModelResponse>(channel_.get(), Broker("GetModel"), request,
                                                  deadlines_.control_ms);
  if (!response.ok()) return response.status();
  return response->known();
}

absl::StatusOr<FindResult> Client::FindMatch(const v1::FindMatchRequest& request) const {
  auto response = UnaryCall<v1::FindMatchResponse>(channel_.get(), Broker("FindMatch"), request,
                                                   deadlines_.find_ms);
  if (!response.ok()) return response.status();
  FindResult result;
  if (response->has_match()) {
    // Held first, so that a match that is refused below is given back.
    result.lease = Lease(channel_, deadlines_.release_ms, std::move(*response->mutable_match()));
    absl::Status status =
        CheckMatch(result.lease.match(), static_cast<uint32_t>(request.token_ids_size()));
    if (!status.ok()) return status;
  } else if (response->has_no_match()) {
    result.no_match = response->no_match();
  } else {
    return absl::InternalError("FindMatch: the broker broke the contract: neither match nor miss");
  }
  return result;
}

absl::StatusOr<v1::ReportShadowCheckResponse> Client::ReportShadowCheck(
    const v1::ReportShadowCheckRequest& request) const {
  return UnaryCall<v1::ReportShadowCheckResponse>(channel_.get(), Broker("ReportShadowCheck"),
                                                  request, deadlines_.control_ms);
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels() const {
  return UnaryCall<v1::ListModelsResponse>(channel_.get(), Admin("ListModels"),
                                           v1::ListModelsRequest(), deadlines_.control_ms);
}

absl::Status Client::Pin(const v1::ReferenceName& reference, bool pinned) const {
  v1::PinRequest request;
  *request.mutable_reference() = reference;
  request.set_pinned(pinned);
  return StatusOf(
      UnaryCall<v1::PinResponse>(channel_.get(), Admin("Pin"), request, deadlines_.control_ms));
}

absl::Status Client::Delete(const v1::ReferenceName& reference) const {
  v1::DeleteRequest request;
  *request.mutable_reference() = reference;
  return StatusOf(UnaryCall<v1::DeleteResponse>(channel_.get(), Admin("Delete"), request,
                                                deadlines_.control_ms));
}

absl::StatusOr<v1::ListResponse> Client::List(const v1::ListRequest& request) const {
  return UnaryCall<v1::ListResponse>(channel_.get(), Admin("List"), request, deadlines_.control_ms);
}

absl::StatusOr<v1::DescribeResponse> Client::Describe(const v1::ReferenceName& reference) const {
  v1::DescribeRequest request;
  *request.mutable_reference() = reference;
  return UnaryCall<v1::DescribeResponse>(channel_.get(), Admin("Describe"), request,
                                         deadlines_.control_ms);
}

absl::StatusOr<v1::DeleteTenantResponse> Client::DeleteTenant() const {
  v1::DeleteTenantRequest request;
  request.set_confirm(true);
  return UnaryCall<v1::DeleteTenantResponse>(channel_.get(), Admin("DeleteTenant"), request,
                                             deadlines_.control_ms);
}

absl::StatusOr<v1::TrimByTimeResponse> Client::TrimByTime(int64_t used_before_unix_ms) const {
  v1::TrimByTimeRequest request;
  request.set_used_before_unix_ms(used_before_unix_ms);
  return UnaryCall<v1::TrimByTimeResponse>(channel_.get(), Admin("TrimByTime"), request,
                                           deadlines_.control_ms);
}

absl::StatusOr<v1::StatsResponse> Client::Stats() const {
  return UnaryCall<v1::StatsResponse>(channel_.get(), Admin("Stats"), v1::StatsRequest(),
                                      deadlines_.control_ms);
}

absl::StatusOr<v1::ShadowStatsResponse> Client::ShadowStats() const {
  return UnaryCall<v1::ShadowStatsResponse>(channel_.get(), Admin("ShadowStats"),
                                            v1::ShadowStatsRequest(), deadlines_.control_ms);
}

absl::StatusOr<v1::ResetShadowResponse> Client::ResetShadow(
    const v1::ResetShadowRequest& request) const {
  return UnaryCall<v1::ResetShadowResponse>(channel_.get(), Admin("ResetShadow"), request,
                                            deadlines_.control_ms);
}

absl::Status Client::Drain() const {
  return StatusOf(UnaryCall<v1::DrainResponse>(channel_.get(), Admin("Drain"), v1::DrainRequest(),
                                               deadlines_.control_ms));
}

absl::StatusOr<HealthState> Client::Health(const std::string& service) const {
  if (service.size() > kMaxHealthServiceBytes) {
    return absl::InvalidArgumentError("health: the service's name is longer than 127 bytes");
  }
  std::string request;
  if (!service.empty()) {
    request = {kHealthServiceTag, static_cast<char>(service.size())};
    request += service;
  }
  absl::StatusOr<std::string> response =
      channel_->Unary("/grpc.health.v1.Health/Check", request, deadlines_.control_ms);
  if (!response.ok()) return response.status();
  // Proto3 leaves a 0 out.
  if (response->empty()) return HealthState::kUnknown;
  if (response->size() == 2 && response->front() == kHealthStatusTag && response->back() >= 0 &&
      response->back() <= static_cast<char>(HealthState::kServiceUnknown)) {
    return static_cast<HealthState>(response->back());
  }
  return absl::InternalError("Check: the health answer does not parse");
}

}  // namespace semshare::client
