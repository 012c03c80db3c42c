// Status codes across the RPC boundary, in both directions: the only place where grpc::Status and
// absl::Status meet. The codes are the same numbers; messages travel unchanged. What may be tried
// again says when: RESOURCE_EXHAUSTED and UNAVAILABLE carry a google.rpc.RetryInfo in their
// details. Thread-safe: pure functions.
#ifndef SEMSHARE_PROTO_RPC_STATUS_H_
#define SEMSHARE_PROTO_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace semshare {

// How long a caller should wait. A slot or some memory is free again soon; a broker that drains, or
// whose disk is down, takes longer to come back.
inline constexpr absl::Duration kExhaustedRetryDelay = absl::Milliseconds(100);
inline constexpr absl::Duration kUnavailableRetryDelay = absl::Seconds(1);

grpc::Status ToGrpcStatus(const absl::Status& status);
// Keeps a RetryInfo as a payload of the status.
absl::Status FromGrpcStatus(const grpc::Status& status);

// The wait that a status from FromGrpcStatus asks for, if it does.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

}  // namespace semshare

#endif  // SEMSHARE_PROTO_RPC_STATUS_H_
