// Status codes across the RPC boundary, in both directions: the only place where grpc::Status and
// absl::Status meet. The codes are the same numbers; messages travel unchanged.
// Thread-safe: pure functions.
#ifndef SEMSHARE_PROTO_RPC_STATUS_H_
#define SEMSHARE_PROTO_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace semshare {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace semshare

#endif  // SEMSHARE_PROTO_RPC_STATUS_H_
