// HttpServer: /metrics, /healthz and /readyz over HTTP (cpp-httplib).
//
// Thread-safe. Owns its threads; stops when destroyed.
#ifndef SEMSHARE_SERVER_OPS_HTTP_SERVER_H_
#define SEMSHARE_SERVER_OPS_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace semshare {

struct HttpHandlers {
  std::function<std::string()> metrics;
  // True from the end of start-up until a drain begins.
  std::function<bool()> ready;
};

class HttpServer {
 public:
  // Listens on HOST:PORT, port 0: any. UNAVAILABLE if the address can't be had.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& listen,
                                                           HttpHandlers handlers);
  virtual ~HttpServer() = default;

  // The real HOST:PORT.
  virtual const std::string& address() const = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_OPS_HTTP_SERVER_H_
