#include "server/ops/http_server.h"

#include <civetweb.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

class HttpServerImpl final : public HttpServer {
 public:
  explicit HttpServerImpl(HttpHandlers handlers) : handlers_(std::move(handlers)) {}
  ~HttpServerImpl() override {
    if (context_ != nullptr) mg_stop(context_);
  }

  absl::Status Start(const std::string& listen) {
    const char* options[] = {"listening_ports",    listen.c_str(), "num_threads", "2",
                             "request_timeout_ms", "5000",         nullptr};
    // civetweb's own error page crashes in some builds, so errors are answered here.
    mg_callbacks callbacks = {};
    callbacks.http_error = &HttpServerImpl::Error;
    context_ = mg_start(&callbacks, nullptr, options);
    if (context_ == nullptr) {
      return absl::UnavailableError(absl::StrCat("can't listen on ", listen));
    }
    mg_set_request_handler(context_, "/metrics$", &HttpServerImpl::Metrics, this);
    mg_set_request_handler(context_, "/healthz$", &HttpServerImpl::Health, this);
    mg_set_request_handler(context_, "/readyz$", &HttpServerImpl::Ready, this);
    mg_server_port port = {};
    if (mg_get_server_ports(context_, 1, &port) < 1) {
      return absl::UnavailableError("the metrics port is unknown");
    }
    address_ = listen.substr(0, listen.rfind(':')) + ":" + std::to_string(port.port);
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

 private:
  static int Answer(mg_connection* connection, int code, const char* type,
                    const std::string& body) {
    const std::string answer =
        absl::StrCat("HTTP/1.1 ", code, " ", mg_get_response_code_text(connection, code),
                     "\r\nContent-Type: ", type, "\r\nContent-Length: ", body.size(),
                     "\r\nConnection: close\r\n\r\n", body);
    mg_write(connection, answer.data(), answer.size());
    return code;
  }

  static int Error(mg_connection* connection, int code, const char*) {
    Answer(connection, code, "text/plain", "");
    return 0;
  }

  static int Metrics(mg_connection* connection, void* self) {
    return Answer(connection, 200, "text/plain; version=0.0.4",
                  static_cast<HttpServerImpl*>(self)->handlers_.metrics());
  }

  static int Health(mg_connection* connection, void*) {
    return Answer(connection, 200, "text/plain", "ok\n");
  }

  static int Ready(mg_connection* connection, void* self) {
    const bool ready = static_cast<HttpServerImpl*>(self)->handlers_.ready();
    return Answer(connection, ready ? 200 : 503, "text/plain", ready ? "ready\n" : "not ready\n");
  }

  const HttpHandlers handlers_;
  mg_context* context_ = nullptr;
  std::string address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& listen,
                                                              HttpHandlers handlers) {
  auto server = std::make_unique<HttpServerImpl>(std::move(handlers));
  SEMSHARE_RETURN_IF_ERROR(server->Start(listen));
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace semshare
