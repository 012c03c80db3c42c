// A unary call with protobuf messages over the client's channel. Internal to client/cpp.
// Thread-safe: a pure function over a thread-safe channel.
#ifndef SEMSHARE_CLIENT_CPP_UNARY_CALL_H_
#define SEMSHARE_CLIENT_CPP_UNARY_CALL_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/rpc_channel.h"

namespace semshare::client {

inline constexpr char kBrokerService[] = "/semshare.v1.CacheBroker/";
inline constexpr char kAdminService[] = "/semshare.v1.CacheAdmin/";

// An answer that does not parse is INTERNAL.
template <typename Response, typename Request>
absl::StatusOr<Response> UnaryCall(RpcChannel* channel, const std::string& method,
                                   const Request& request, int64_t deadline_ms) {
  absl::StatusOr<std::string> bytes =
      channel->Unary(method, request.SerializeAsString(), deadline_ms);
  if (!bytes.ok()) return bytes.status();
  Response response;
  if (!response.ParseFromString(*bytes)) {
    return absl::InternalError("the broker's answer to " + method + " does not parse");
  }
  return response;
}

}  // namespace semshare::client

#endif  // SEMSHARE_CLIENT_CPP_UNARY_CALL_H_
