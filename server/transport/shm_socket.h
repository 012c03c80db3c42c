// ShmSocket: the unix socket where workers hand over memory, shared or of a GPU (shm_wire.h). One
// thread serves all connections; a worker that closes its connection, or dies, takes its regions
// along. The broker's end of a connection stays open until the last user of its regions is gone.
//
// Thread-safe. Who may connect is who may write to the socket's file: its owner, and the group of
// the process too if the options say so.
#ifndef SEMSHARE_SERVER_TRANSPORT_SHM_SOCKET_H_
#define SEMSHARE_SERVER_TRANSPORT_SHM_SOCKET_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/transport/region_table.h"

namespace semshare {

struct ShmSocketOptions {
  std::string path;  // at most 107 bytes; a file that is there is replaced
  std::string tenant;
  int max_connections = 256;
  bool group_access = false;  // workers of the broker's group may connect, not its user's alone
};

class ShmSocket {
 public:
  // Listens and starts the thread. `regions` must outlive the socket. INVALID_ARGUMENT if the path
  // is too long, UNAVAILABLE if it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<ShmSocket>> Start(const ShmSocketOptions& options,
                                                          RegionTable* regions);
  // Ends all connections, which removes their regions, and deletes the file.
  virtual ~ShmSocket() = default;

 protected:
  ShmSocket() = default;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_TRANSPORT_SHM_SOCKET_H_
