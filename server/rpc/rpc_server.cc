#include "server/rpc/rpc_server.h"

#include <google/protobuf/util/json_util.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/rpc/convert.h"
#include "server/rpc/service.h"

namespace semshare {
namespace {

constexpr uint32_t kApiRevision = 1;

v1::GetServerInfoResponse MakeInfo(const Broker& broker) {
  v1::GetServerInfoResponse info;
  info.set_version(kVersion);
  info.set_api_revision(kApiRevision);
  info.set_chunk_tokens(kChunkTokens);
  info.set_backend(broker.backend()->info().name);
  info.set_device(broker.backend()->info().device);
  info.add_transports(v1::TRANSPORT_INLINE);
  info.add_codecs("raw");
  for (int mode = v1::MATCH_MODE_EXACT_PREFIX; mode <= v1::MatchMode_MAX; ++mode) {
    if (mode == v1::MATCH_MODE_FUZZY && !broker.options().allow_fuzzy) continue;
    info.add_modes(static_cast<v1::MatchMode>(mode));
  }
  for (int preset = v1::PRESET_AUTO; preset <= v1::Preset_MAX; ++preset) {
    info.add_presets(static_cast<v1::Preset>(preset));
  }
  const Limits& limits = broker.options().limits;
  info.mutable_limits()->set_max_tokens(static_cast<uint32_t>(limits.max_tokens));
  info.mutable_limits()->set_max_frame_payload_bytes(
      static_cast<uint32_t>(limits.max_frame_payload_bytes));
  info.mutable_limits()->set_max_segments(static_cast<uint32_t>(limits.max_segments));
  info.mutable_limits()->set_max_references_per_match(
      static_cast<uint32_t>(limits.max_references_per_match));
  info.mutable_limits()->set_max_leases(static_cast<uint32_t>(limits.max_leases));
  info.mutable_limits()->set_max_uploads(static_cast<uint32_t>(limits.max_uploads));
  info.mutable_limits()->set_max_models(static_cast<uint32_t>(limits.max_models));
  return info;
}

class RpcServerImpl final : public RpcServer {
 public:
  RpcServerImpl(Broker* broker, Executor* executor, StagingPool* staging) : broker_(broker) {
    ServiceContext context{
        broker, executor, staging, &watch_, [this] { return Info(); }, [this] { SetNotServing(); }};
    broker_service_ = NewCacheBrokerService(context);
    admin_service_ = NewCacheAdminService(context);
  }
  ~RpcServerImpl() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Start(const RpcServerOptions& options) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(broker_service_.get());
    builder.RegisterService(admin_service_.get());
    // Two processes must never share a port by accident.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::UnavailableError(absl::StrCat("can't listen on ", options.listen));
    }
    address_ = options.listen.substr(0, options.listen.rfind(':')) + ":" + std::to_string(port);
    metrics_address_ = options.metrics_address;
    shm_socket_ = options.shm_socket;
    server_->GetHealthCheckService()->SetServingStatus(true);
    for (const char* service : {"semshare.v1.CacheBroker", "semshare.v1.CacheAdmin"}) {
      server_->GetHealthCheckService()->SetServingStatus(service, true);
    }
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

  std::string AddressFile() const override {
    google::protobuf::util::JsonPrintOptions print;
    print.preserve_proto_field_names = true;
    std::string json;
    const bool printed = google::protobuf::util::MessageToJsonString(Info(), &json, print).ok();
    SEMSHARE_CHECK(printed && json.size() > 2);
    return absl::StrCat("{\"grpc\":\"", address_, "\",\"metrics\":\"", metrics_address_, "\",",
                        json.substr(1), "\n");
  }

  int64_t CancelStalled(int64_t now_ms) override { return watch_.CancelStalled(now_ms); }

  void SetNotServing() override { server_->GetHealthCheckService()->SetServingStatus(false); }

  void Shutdown(absl::Duration grace) override {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
    server_->Wait();
    server_ = nullptr;
  }

 private:
  v1::GetServerInfoResponse Info() const {
    v1::GetServerInfoResponse info = MakeInfo(*broker_);
    info.set_grpc_address(address_);
    info.set_metrics_address(metrics_address_);
    info.set_shm_socket(shm_socket_);
    if (!shm_socket_.empty()) {
      info.add_transports(v1::TRANSPORT_SHARED_MEMORY);
      if (broker_->backend()->info().opens_peer_memory) {
        info.add_transports(v1::TRANSPORT_CUDA_IPC);
      }
    }
    info.set_unix_time_ms(broker_->now_ms());
    return info;
  }

  Broker* const broker_;
  StreamWatch watch_;
  std::unique_ptr<grpc::Service> broker_service_;
  std::unique_ptr<grpc::Service> admin_service_;
  std::string address_;
  std::string metrics_address_;
  std::string shm_socket_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                            Broker* broker, Executor* executor,
                                                            StagingPool* staging) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto server = std::make_unique<RpcServerImpl>(broker, executor, staging);
  SEMSHARE_RETURN_IF_ERROR(server->Start(options));
  return std::unique_ptr<RpcServer>(std::move(server));
}

ModelInfoParser ContractModelParser(const Limits& limits) {
  return [limits](std::string_view serialized) { return ParseModelInfo(serialized, limits); };
}

}  // namespace semshare
