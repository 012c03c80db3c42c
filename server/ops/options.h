// ServerOptions: what the process can be told, with a default each. flags.cc reads them from the
// command line (absl flags; --flagfile works).
// Thread-safe: a value.
#ifndef SEMSHARE_SERVER_OPS_OPTIONS_H_
#define SEMSHARE_SERVER_OPS_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/broker.h"

namespace semshare {

struct ServerOptions {
  std::string listen = "127.0.0.1:7700";
  std::string metrics_listen = "127.0.0.1:7701";
  std::string data_dir = "data";
  std::string backend = "auto";  // auto, cpu, cuda
  int cuda_device = 0;           // ordinal of the GPU that the CUDA backend uses
  int64_t cuda_staging_bytes = CudaBackendOptions().staging_bytes;  // of a buffer of each lane
  std::string address_file;                                         // empty: none is written
  // Unix socket of the shared-memory transport. "auto": <data_dir>/shm.sock, "none": no such
  // transport.
  std::string shm_socket = "auto";
  bool shm_group_access = false;  // the broker's group may connect to it, not its user alone
  int kernel_threads = 0;  // threads of one operation on the CPU; 0: one for each CPU, at most 4
  int lanes = 8;
  int worker_threads = 4;         // executor threads for RPC work
  int max_queue = 1024;           // calls that wait for one
  int streams = 16;               // ReadKv streams at a time
  int64_t stop_grace_ms = 10000;  // in-flight calls at SIGTERM
  bool log_json = false;
  BrokerOptions broker;

  // Never changes a value. INVALID_ARGUMENT names the flag.
  absl::Status Validate() const;
};

// Parses the command line. Exits on --help, as absl flags do.
absl::StatusOr<ServerOptions> OptionsFromFlags(int argc, char** argv);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_OPS_OPTIONS_H_
