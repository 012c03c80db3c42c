// A semshared of its own for a test: started on free ports with a data folder, stopped at the end.
//
// Not thread-safe. Ownership: the Daemon owns the process and kills it when it is destroyed; the
// folder is the caller's.
#ifndef SEMSHARE_TESTS_CLIENT_CPP_DAEMON_H_
#define SEMSHARE_TESTS_CLIENT_CPP_DAEMON_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace semshare::client::testing {

class Daemon {
 public:
  // Returns once the address file is there. INTERNAL if the process ends before, or takes too long.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const std::string& program,
                                                       const std::string& folder);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  const std::string& address_file() const { return address_file_; }

  // Sends a signal and waits for the end; returns the exit code, or -1 if it did not exit by
  // itself.
  int Stop(int signal);

 private:
  Daemon(pid_t process, std::string address_file);

  pid_t process_;
  std::string address_file_;
};

}  // namespace semshare::client::testing

#endif  // SEMSHARE_TESTS_CLIENT_CPP_DAEMON_H_
