#include "server/ops/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace semshare {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Ask(const std::string& address, const std::string& request) {
  const int socket_fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  inet_pton(AF_INET, "127.0.0.1", &peer.sin_addr);
  EXPECT_EQ(connect(socket_fd, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)), 0);
  EXPECT_EQ(send(socket_fd, request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t got = 0; (got = recv(socket_fd, buffer, sizeof(buffer), 0)) > 0;) {
    answer.append(buffer, static_cast<size_t>(got));
  }
  close(socket_fd);
  return answer;
}

std::string Get(const std::string& address, const std::string& path) {
  return Ask(address, "GET " + path + " HTTP/1.0\r\n\r\n");
}

TEST(HttpServerTest, ServesMetricsHealthAndReadiness) {
  std::atomic<bool> ready = true;
  const auto server = HttpServer::Start(
      "127.0.0.1:0", {[] { return std::string("metric 1\n"); }, [&ready] { return ready.load(); }});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT(Get((*server)->address(), "/metrics"), HasSubstr("metric 1\n"));
  EXPECT_THAT(Get((*server)->address(), "/healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Get((*server)->address(), "/readyz"), StartsWith("HTTP/1.1 200"));
  ready = false;
  EXPECT_THAT(Get((*server)->address(), "/readyz"), StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(Get((*server)->address(), "/other"), HasSubstr("404"));
  EXPECT_THAT(Ask((*server)->address(), "nonsense\r\n\r\n"), HasSubstr("400"));
}

TEST(HttpServerTest, TakenAddressIsUnavailable) {
  const auto first = HttpServer::Start("127.0.0.1:0", {});
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(absl::IsUnavailable(HttpServer::Start((*first)->address(), {}).status()));
}

}  // namespace
}  // namespace semshare
