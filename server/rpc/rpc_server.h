// RpcServer: the gRPC server with both services, health and reflection.
//
// Thread-safe. Owns its threads' work: Shutdown ends all calls.
#ifndef SEMSHARE_SERVER_RPC_RPC_SERVER_H_
#define SEMSHARE_SERVER_RPC_RPC_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/broker.h"
#include "server/executor.h"
#include "server/transport/staging.h"

namespace semshare {

// The version of the build, as GetServerInfo says it.
inline constexpr const char kVersion[] = "0.1.0";

struct RpcServerOptions {
  std::string listen;           // HOST:PORT, port 0: any
  std::string metrics_address;  // for GetServerInfo
  std::string shm_socket;       // for GetServerInfo; empty: no shared memory
};

class RpcServer {
 public:
  // Listens when this returns; health says SERVING. UNAVAILABLE if the address can't be had.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options,
                                                          Broker* broker, Executor* executor,
                                                          StagingPool* staging);
  virtual ~RpcServer() = default;

  // The real HOST:PORT.
  virtual const std::string& address() const = 0;
  // What GetServerInfo says, as JSON, with "grpc" and "metrics" first: the address file.
  virtual std::string AddressFile() const = 0;
  // Ends streams whose peer stopped taking part; returns how many. Called once a second.
  virtual int64_t CancelStalled(int64_t now_ms) = 0;
  // Health becomes NOT_SERVING.
  virtual void SetNotServing() = 0;
  // Refuses new calls, waits for those in flight at most `grace`, then cancels them.
  virtual void Shutdown(absl::Duration grace) = 0;
};

// ModelInfoParser of this contract.
ModelInfoParser ContractModelParser(const Limits& limits);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_RPC_SERVER_H_
