// The tenant of a call. Until callers are authenticated there is one, and the service listens on
// loopback only. Thread-safe: a constant.
#ifndef SEMSHARE_SERVER_RPC_TENANT_H_
#define SEMSHARE_SERVER_RPC_TENANT_H_

#include <string_view>

namespace semshare {

inline constexpr std::string_view kDefaultTenant = "default";

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_TENANT_H_
