#include "server/ops/http_server.h"

#include <httplib.h>

#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

constexpr size_t kThreads = 2;
constexpr int kTimeoutSeconds = 5;
constexpr char kText[] = "text/plain; version=0.0.4";

class HttpServerImpl final : public HttpServer {
 public:
  explicit HttpServerImpl(HttpHandlers handlers) : handlers_(std::move(handlers)) {
    server_.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server_.set_read_timeout(kTimeoutSeconds);
    server_.set_write_timeout(kTimeoutSeconds);
    server_.set_keep_alive_max_count(1);
    // One process owns the port: httplib's default lets a second one share it unseen.
    server_.set_socket_options([](socket_t) {});
    server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(handlers_.metrics(), kText);
    });
    server_.Get("/healthz", [](const httplib::Request&, httplib::Response& response) {
      response.set_content("ok\n", kText);
    });
    server_.Get("/readyz", [this](const httplib::Request&, httplib::Response& response) {
      const bool ready = handlers_.ready();
      response.status = ready ? 200 : 503;
      response.set_content(ready ? "ready\n" : "not ready\n", kText);
    });
  }

  ~HttpServerImpl() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Start(const std::string& listen) {
    const size_t colon = listen.rfind(':');
    int port = 0;
    if (colon == std::string::npos || !absl::SimpleAtoi(listen.substr(colon + 1), &port)) {
      return absl::InvalidArgumentError(absl::StrCat("not HOST:PORT: ", listen));
    }
    std::string host = listen.substr(0, colon);
    address_ = host;
    if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
    if (port == 0) {
      port = server_.bind_to_any_port(host);
    } else if (!server_.bind_to_port(host, port)) {
      port = -1;
    }
    if (port < 0) return absl::UnavailableError(absl::StrCat("can't listen on ", listen));
    absl::StrAppend(&address_, ":", port);
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    // stop() does nothing before the loop runs, and the destructor would wait for ever.
    while (!server_.is_running()) std::this_thread::yield();
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

 private:
  const HttpHandlers handlers_;
  httplib::Server server_;
  std::string address_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& listen,
                                                              HttpHandlers handlers) {
  auto server = std::make_unique<HttpServerImpl>(std::move(handlers));
  SEMSHARE_RETURN_IF_ERROR(server->Start(listen));
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace semshare
