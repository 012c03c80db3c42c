// The two services of the contract over a Broker: translate, call, translate. Blocking work runs on
// the executor; gRPC's threads only hand it over.
//
// Thread-safe. `broker`, `executor`, `staging` and `watch` must outlive the services and their
// calls.
#ifndef SEMSHARE_SERVER_RPC_SERVICE_H_
#define SEMSHARE_SERVER_RPC_SERVICE_H_

#include <grpcpp/impl/service_type.h>

#include <functional>
#include <memory>
#include <string>

#include "semshare/v1/cache_broker.pb.h"
#include "server/broker.h"
#include "server/executor.h"
#include "server/rpc/stream_watch.h"
#include "server/transport/staging.h"

namespace semshare {

struct ServiceContext {
  Broker* broker = nullptr;
  Executor* executor = nullptr;
  StagingPool* staging = nullptr;
  StreamWatch* watch = nullptr;
  // What GetServerInfo says; the addresses are known once the server listens.
  std::function<v1::GetServerInfoResponse()> server_info;
  // Called when an administrator drains the broker: gRPC's health must tell, too.
  std::function<void()> on_drain;
};

std::unique_ptr<grpc::Service> NewCacheBrokerService(const ServiceContext& context);
std::unique_ptr<grpc::Service> NewCacheAdminService(const ServiceContext& context);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_SERVICE_H_
