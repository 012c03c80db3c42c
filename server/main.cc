// semshared: takes memory, rebuilds from disk, serves until SIGTERM or SIGINT.
#include <signal.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/backend.h"
#include "kernels/base/status_macros.h"
#include "server/broker.h"
#include "server/executor.h"
#include "server/ops/http_server.h"
#include "server/ops/metrics_page.h"
#include "server/ops/options.h"
#include "server/rpc/rpc_server.h"
#include "server/rpc/tenant.h"
#include "server/transport/shm_socket.h"
#include "server/transport/staging.h"
#include "storage/disk_tier.h"

namespace semshare {
namespace {

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string Text(const absl::Status& status) { return std::string(status.ToString()); }

// Everything the process owns, in the order in which it must be made and, reversed, destroyed.
struct Server {
  std::unique_ptr<std::atomic<bool>> ready = std::make_unique<std::atomic<bool>>(false);
  std::unique_ptr<Backend> backend;
  std::unique_ptr<DiskTier> disk;
  std::unique_ptr<Broker> broker;
  std::unique_ptr<ShmSocket> shm;
  std::unique_ptr<StagingPool> staging;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<RpcServer> rpc;
};

// A CPU's memory is full before more threads than these are, and the workers need cores too.
int KernelThreads(const ServerOptions& options) {
  constexpr int kMost = 4;
  if (options.kernel_threads > 0) return options.kernel_threads;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMost);
}

// cuda: a GPU or nothing. auto: a GPU where this build and this machine have one, else the CPU,
// said aloud, because it is many times slower.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const ServerOptions& options,
                                                     bool* fell_back) {
  *fell_back = false;
  if (options.backend != "cpu") {
    CudaBackendOptions cuda;
    cuda.device = options.cuda_device;
    cuda.lanes = options.lanes;
    cuda.staging_bytes = options.cuda_staging_bytes;
    absl::StatusOr<std::unique_ptr<Backend>> backend = NewCudaBackend(cuda);
    if (backend.ok()) return backend;
    if (options.backend == "cuda") {
      return absl::Status(backend.status().code(),
                          absl::StrCat("--backend=cuda: ", backend.status().message()));
    }
    *fell_back = true;
    spdlog::warn("backend auto: the CPU backend is used instead of a GPU: {}",
                 Text(backend.status()));
  }
  return NewCpuBackend({options.lanes, KernelThreads(options)});
}

absl::Status WriteAddressFile(const std::string& path, const std::string& text) {
  // Written beside and renamed, so that a reader never sees half of it.
  const std::string temporary = path + ".tmp";
  std::ofstream file(temporary, std::ios::trunc);
  file << text;
  file.close();
  std::error_code error;
  if (file.good()) std::filesystem::rename(temporary, path, error);
  if (!file.good() || error) {
    return absl::UnavailableError("can't write the address file " + path);
  }
  return absl::OkStatus();
}

// The path that clients are told, absolute so that it does not depend on their folder; empty: none.
std::string ShmPath(const ServerOptions& options) {
  if (options.shm_socket == "none") return "";
  const std::string path =
      options.shm_socket == "auto" ? options.data_dir + "/shm.sock" : options.shm_socket;
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

// A default path that is too long must not keep the broker from starting; one that was asked for
// must.
absl::Status StartShm(const ServerOptions& options, Server* server, std::string* path) {
  *path = ShmPath(options);
  if (path->empty()) return absl::OkStatus();
  ShmSocketOptions listen{*path, std::string(kDefaultTenant)};
  listen.group_access = options.shm_group_access;
  auto socket = ShmSocket::Start(listen, server->broker->regions());
  if (socket.ok()) {
    server->shm = *std::move(socket);
    return absl::OkStatus();
  }
  if (options.shm_socket != "auto") return socket.status();
  spdlog::warn("shared memory is off: {}", Text(socket.status()));
  path->clear();
  return absl::OkStatus();
}

absl::StatusOr<Server> Start(const ServerOptions& options) {
  Server server;
  bool fell_back = false;
  SEMSHARE_ASSIGN_OR_RETURN(server.backend, MakeBackend(options, &fell_back));
  std::error_code error;
  std::filesystem::create_directories(options.data_dir, error);
  if (error) {
    return absl::UnavailableError("--data_dir: can't create " + options.data_dir + ": " +
                                  error.message());
  }
  RocksDbTierOptions disk;
  disk.path = options.data_dir + "/store";
  SEMSHARE_ASSIGN_OR_RETURN(server.disk, NewRocksDbTier(disk));
  std::vector<std::string> warnings;
  SEMSHARE_ASSIGN_OR_RETURN(
      server.broker, Broker::Create(options.broker, server.backend.get(), server.disk.get(),
                                    ContractModelParser(options.broker.limits), &NowMs, &warnings));
  for (const std::string& warning : warnings) spdlog::warn("start-up: {}", warning);
  server.broker->metrics().backend_fallback = fell_back ? 1 : 0;
  SEMSHARE_ASSIGN_OR_RETURN(server.staging,
                            StagingPool::Create(server.backend.get(), options.streams,
                                                options.broker.limits.max_frame_payload_bytes));
  server.executor = std::make_unique<Executor>(options.worker_threads, options.max_queue);
  Broker* broker = server.broker.get();
  std::atomic<bool>* ready = server.ready.get();
  SEMSHARE_ASSIGN_OR_RETURN(
      server.http,
      HttpServer::Start(options.metrics_listen,
                        {[broker] { return MetricsPage(broker); },
                         [broker, ready] { return ready->load() && !broker->draining(); }}));
  std::string shm_path;
  SEMSHARE_RETURN_IF_ERROR(StartShm(options, &server, &shm_path));
  SEMSHARE_ASSIGN_OR_RETURN(
      server.rpc, RpcServer::Start({options.listen, server.http->address(), shm_path}, broker,
                                   server.executor.get(), server.staging.get()));
  *server.ready = true;
  return server;
}

void LogStart(const Server& server) {
  const BrokerStats stats = server.broker->Stats();
  spdlog::info("serving grpc={} metrics={} backend={} models={} references={} chunks={}",
               server.rpc->address(), server.http->address(), server.backend->info().name,
               stats.models, stats.references, stats.chunks.chunks);
}

// Waits for a signal; maintenance runs once a second until then.
int ServeUntilSignal(const sigset_t& signals, const Server& server) {
  Broker* broker = server.broker.get();
  std::string last_error;
  while (true) {
    const timespec second = {1, 0};
    const int signal = sigtimedwait(&signals, nullptr, &second);
    if (signal > 0) return signal;
    const int64_t stalled = server.rpc->CancelStalled(broker->now_ms());
    if (stalled > 0) spdlog::warn("cancelled {} streams whose peer stopped", stalled);
    const absl::Status status = broker->Maintain();
    const std::string error = status.ok() ? "" : Text(status);
    if (!error.empty() && error != last_error) spdlog::error("maintenance: {}", error);
    last_error = error;
  }
}

void Stop(const ServerOptions& options, Server* server) {
  server->broker->Drain();
  server->rpc->SetNotServing();
  server->rpc->Shutdown(absl::Milliseconds(options.stop_grace_ms));
  server->executor = nullptr;  // runs what is queued
  server->http = nullptr;
}

int Main(int argc, char** argv) {
  // Debian builds Abseil, whose mutexes are gRPC's, with the checks of a debug build: each lock
  // would be looked up in a graph of all locks.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // Blocked before any thread starts, so that every thread inherits it and sigtimedwait gets them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const absl::StatusOr<ServerOptions> options = OptionsFromFlags(argc, argv);
  if (!options.ok()) {
    std::fprintf(stderr, "semshared: %s\n", Text(options.status()).c_str());
    return 2;
  }
  if (options->log_json) {
    spdlog::set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","message":"%v"})");
  }
  absl::StatusOr<Server> server = Start(*options);
  if (!server.ok()) {
    spdlog::error("can't start: {}", Text(server.status()));
    return 1;
  }
  if (!options->address_file.empty()) {
    const absl::Status written =
        WriteAddressFile(options->address_file, server->rpc->AddressFile());
    if (!written.ok()) {
      spdlog::error("can't start: {}", Text(written));
      return 1;
    }
  }
  LogStart(*server);
  const int signal = ServeUntilSignal(signals, *server);
  spdlog::info("stopping on signal {}", signal);
  Stop(*options, &*server);
  spdlog::info("stopped");
  return 0;
}

}  // namespace
}  // namespace semshare

int main(int argc, char** argv) { return semshare::Main(argc, argv); }
