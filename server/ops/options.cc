#include "server/ops/options.h"

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

// Callers are not authenticated yet, so nobody but this machine may reach the service.
absl::Status CheckLoopback(const char* flag, const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--", flag, ": expected HOST:PORT"));
  }
  const std::string host = address.substr(0, colon);
  if (host == "localhost" || host == "[::1]" || host.rfind("127.", 0) == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, ": ", host,
                   " is not loopback; TLS and tenants are not built yet, so the service refuses "
                   "to listen where others can reach it"));
}

}  // namespace

absl::Status ServerOptions::Validate() const {
  SEMSHARE_RETURN_IF_ERROR(CheckLoopback("listen", listen));
  SEMSHARE_RETURN_IF_ERROR(CheckLoopback("metrics_listen", metrics_listen));
  if (data_dir.empty()) return absl::InvalidArgumentError("--data_dir: must not be empty");
  if (shm_socket.empty()) {
    return absl::InvalidArgumentError("--shm_socket: expected a path, auto or none");
  }
  if (backend != "auto" && backend != "cpu" && backend != "cuda") {
    return absl::InvalidArgumentError("--backend: expected auto, cpu or cuda");
  }
  if (cuda_device < 0 || cuda_device > 63) {
    return absl::InvalidArgumentError("--cuda_device: expected 0 to 63");
  }
  if (cuda_staging_bytes < (int64_t{1} << 20) || cuda_staging_bytes > (int64_t{1} << 30)) {
    return absl::InvalidArgumentError("--cuda_staging_bytes: expected 1 MiB to 1 GiB");
  }
  if (kernel_threads < 0 || kernel_threads > 64 || lanes < 1 || lanes > 256 || worker_threads < 1 ||
      worker_threads > 256 || max_queue < 1 || streams < 1 || streams > 1024 || stop_grace_ms < 0) {
    return absl::InvalidArgumentError(
        "--kernel_threads, --lanes, --worker_threads, --max_queue, --streams: out of range");
  }
  return broker.Validate();
}

}  // namespace semshare
