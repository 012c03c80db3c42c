// Every flag of semshared.
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/ops/options.h"

ABSL_FLAG(std::string, listen, semshare::ServerOptions().listen,
          "HOST:PORT of the gRPC service; port 0 takes any free one. Loopback only.");
ABSL_FLAG(std::string, metrics_listen, semshare::ServerOptions().metrics_listen,
          "HOST:PORT of /metrics, /healthz and /readyz. Loopback only.");
ABSL_FLAG(std::string, data_dir, semshare::ServerOptions().data_dir,
          "Directory of the store; created if it is not there.");
ABSL_FLAG(int64_t, device_memory_bytes, semshare::ServerOptions().broker.chunks.device_memory_bytes,
          "Size of the device arena; all of it is taken at start.");
ABSL_FLAG(int64_t, model_memory_bytes, semshare::ServerOptions().broker.model_memory_bytes,
          "What embedding tables and projected rows of all models may take.");
ABSL_FLAG(
    std::string, backend, semshare::ServerOptions().backend,
    "cuda: a GPU, or the broker does not start; auto: a GPU if there is one, else the CPU with "
    "a warning; cpu.");
ABSL_FLAG(int, cuda_device, semshare::ServerOptions().cuda_device,
          "Ordinal of the GPU that the CUDA backend uses.");
ABSL_FLAG(int64_t, cuda_staging_bytes, semshare::ServerOptions().cuda_staging_bytes,
          "CUDA backend: what each lane has three buffers of (two pinned, one on the device); "
          "tables of one operation that come from host memory must fit.");
ABSL_FLAG(std::string, address_file, semshare::ServerOptions().address_file,
          "Where to write the real addresses, as JSON, once the service is ready.");
ABSL_FLAG(std::string, shm_socket, semshare::ServerOptions().shm_socket,
          "Unix socket where workers of this host share memory; auto: <data_dir>/shm.sock; none.");
ABSL_FLAG(
    bool, shm_group_access, semshare::ServerOptions().shm_group_access,
    "Workers of the broker's group may connect to --shm_socket, not those of its user alone.");
ABSL_FLAG(int64_t, shm_memory_bytes, semshare::ServerOptions().broker.regions.max_total_bytes,
          "What the memory that workers share may add up to.");
ABSL_FLAG(int, kernel_threads, semshare::ServerOptions().kernel_threads,
          "Threads of one operation on the CPU backend; 0: one for each CPU, at most 4.");
ABSL_FLAG(int, lanes, semshare::ServerOptions().lanes, "Transfers that run at a time.");
ABSL_FLAG(int, worker_threads, semshare::ServerOptions().worker_threads,
          "Threads that do the work of calls.");
ABSL_FLAG(int, max_queue, semshare::ServerOptions().max_queue,
          "Calls that wait for a worker thread before new ones are refused.");
ABSL_FLAG(int, streams, semshare::ServerOptions().streams,
          "ReadKv streams at a time; each has 3 staging buffers of 2 MiB.");
ABSL_FLAG(int64_t, lease_timeout_ms, semshare::ServerOptions().broker.lease_timeout_ms,
          "Life of a lease that nobody reads from.");
ABSL_FLAG(int64_t, upload_timeout_ms, semshare::ServerOptions().broker.upload_timeout_ms,
          "Time between BeginPut and WriteKv.");
ABSL_FLAG(int64_t, lease_memory_ms, semshare::ServerOptions().broker.lease_memory_ms,
          "How long an ended lease is remembered, so that a late caller learns that it expired.");
ABSL_FLAG(int64_t, max_tokens, semshare::ServerOptions().broker.limits.max_tokens,
          "Tokens of a prompt, stored or looked for.");
ABSL_FLAG(int, max_leases, semshare::ServerOptions().broker.limits.max_leases,
          "Matches that callers hold at a time.");
ABSL_FLAG(int, max_uploads, semshare::ServerOptions().broker.limits.max_uploads,
          "Puts that are under way at a time.");
ABSL_FLAG(int, max_models, semshare::ServerOptions().broker.limits.max_models,
          "Models that can be registered.");
ABSL_FLAG(int64_t, stop_grace_ms, semshare::ServerOptions().stop_grace_ms,
          "Time for calls in flight when the process is told to stop.");
ABSL_FLAG(double, kl_target, semshare::ServerOptions().broker.default_kl_target,
          "KL of the first token, in nats, that a caller accepts who does not say.");
ABSL_FLAG(
    double, sigma_limit, semshare::ServerOptions().broker.sigma_limit,
    "Mean deviation of the sentinel tokens above which a worker falls back; 0: no such gate.");
ABSL_FLAG(double, minimum_gain, semshare::ServerOptions().broker.default_minimum_gain,
          "Predicted prefill over predicted reuse below which a match is a miss; 0: no such gate.");
ABSL_FLAG(int64_t, minimum_match_tokens, semshare::ServerOptions().broker.minimum_match_tokens,
          "Matched tokens below which a match is a miss; prompts of no more are misses, too.");
ABSL_FLAG(double, minimum_coverage, semshare::ServerOptions().broker.minimum_coverage,
          "Share of the prompt that a match must cover, 0..1.");
ABSL_FLAG(double, maximum_recomputed_share,
          semshare::ServerOptions().broker.maximum_recomputed_share,
          "Share of the prompt recomputed above which an approximate match is a miss.");
ABSL_FLAG(double, shadow_kl_limit, semshare::ServerOptions().broker.shadow.kl_limit,
          "Mean KL of the latest shadow checks, in nats, above which a kind of match of a model is "
          "switched off for a while; 0: never.");
ABSL_FLAG(int, shadow_minimum_checks, semshare::ServerOptions().broker.shadow.minimum_checks,
          "Shadow checks before a kind of match may be switched off, 1..64.");
ABSL_FLAG(int64_t, shadow_disable_ms, semshare::ServerOptions().broker.shadow.disable_ms,
          "How long shadow checks switch a kind of match off.");
ABSL_FLAG(bool, allow_fuzzy, semshare::ServerOptions().broker.allow_fuzzy,
          "Whether callers may ask for MATCH_MODE_FUZZY.");
ABSL_FLAG(bool, log_json, semshare::ServerOptions().log_json, "Log lines as JSON.");

namespace semshare {

absl::StatusOr<ServerOptions> OptionsFromFlags(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "semshared: a KV-cache broker for LLM inference.\nUsage: semshared [--flag=value ...]");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("unexpected argument: ", rest[1]));
  }
  ServerOptions options;
  options.listen = absl::GetFlag(FLAGS_listen);
  options.metrics_listen = absl::GetFlag(FLAGS_metrics_listen);
  options.data_dir = absl::GetFlag(FLAGS_data_dir);
  options.backend = absl::GetFlag(FLAGS_backend);
  options.cuda_device = absl::GetFlag(FLAGS_cuda_device);
  options.cuda_staging_bytes = absl::GetFlag(FLAGS_cuda_staging_bytes);
  options.address_file = absl::GetFlag(FLAGS_address_file);
  options.shm_socket = absl::GetFlag(FLAGS_shm_socket);
  options.shm_group_access = absl::GetFlag(FLAGS_shm_group_access);
  options.broker.regions.max_total_bytes = absl::GetFlag(FLAGS_shm_memory_bytes);
  options.kernel_threads = absl::GetFlag(FLAGS_kernel_threads);
  options.lanes = absl::GetFlag(FLAGS_lanes);
  options.worker_threads = absl::GetFlag(FLAGS_worker_threads);
  options.max_queue = absl::GetFlag(FLAGS_max_queue);
  options.streams = absl::GetFlag(FLAGS_streams);
  options.stop_grace_ms = absl::GetFlag(FLAGS_stop_grace_ms);
  options.log_json = absl::GetFlag(FLAGS_log_json);
  options.broker.chunks.device_memory_bytes = absl::GetFlag(FLAGS_device_memory_bytes);
  options.broker.model_memory_bytes = absl::GetFlag(FLAGS_model_memory_bytes);
  options.broker.lease_timeout_ms = absl::GetFlag(FLAGS_lease_timeout_ms);
  options.broker.lease_memory_ms = absl::GetFlag(FLAGS_lease_memory_ms);
  options.broker.limits.max_tokens = absl::GetFlag(FLAGS_max_tokens);
  options.broker.limits.max_leases = absl::GetFlag(FLAGS_max_leases);
  options.broker.limits.max_uploads = absl::GetFlag(FLAGS_max_uploads);
  options.broker.limits.max_models = absl::GetFlag(FLAGS_max_models);
  options.broker.minimum_match_tokens = absl::GetFlag(FLAGS_minimum_match_tokens);
  options.broker.minimum_coverage = absl::GetFlag(FLAGS_minimum_coverage);
  options.broker.maximum_recomputed_share = absl::GetFlag(FLAGS_maximum_recomputed_share);
  options.broker.upload_timeout_ms = absl::GetFlag(FLAGS_upload_timeout_ms);
  options.broker.default_kl_target = absl::GetFlag(FLAGS_kl_target);
  options.broker.sigma_limit = absl::GetFlag(FLAGS_sigma_limit);
  options.broker.default_minimum_gain = absl::GetFlag(FLAGS_minimum_gain);
  options.broker.shadow.kl_limit = absl::GetFlag(FLAGS_shadow_kl_limit);
  options.broker.shadow.minimum_checks = absl::GetFlag(FLAGS_shadow_minimum_checks);
  options.broker.shadow.disable_ms = absl::GetFlag(FLAGS_shadow_disable_ms);
  options.broker.allow_fuzzy = absl::GetFlag(FLAGS_allow_fuzzy);
  SEMSHARE_RETURN_IF_ERROR(options.Validate());
  return options;
}

}  // namespace semshare
