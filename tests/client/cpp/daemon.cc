#include "tests/client/cpp/daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace semshare::client::testing {
namespace {

// A sanitizer build on a busy machine is slow to start.
constexpr std::chrono::seconds kStartTimeout{120};

// Closes a descriptor at the end of a scope.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int number() const { return number_; }

 private:
  int number_;
};

pid_t Spawn(const std::vector<std::string>& words, const std::string& log) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t process = fork();
  if (process != 0) return process;
  // Only calls that are safe after a fork. The daemon must not outlive a test that crashes.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (file >= 0) {
    dup2(file, STDOUT_FILENO);
    dup2(file, STDERR_FILENO);
  }
  execv(arguments[0], arguments.data());
  _exit(127);
}

// Waits until `file` is there, or `process` has ended.
bool WaitForFile(const std::string& file, int watch, int process) {
  const auto deadline = std::chrono::steady_clock::now() + kStartTimeout;
  while (!std::filesystem::exists(file)) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd waits[] = {{watch, POLLIN, 0}, {process, POLLIN, 0}};
    poll(waits, 2, static_cast<int>(left.count()));
    if ((waits[1].revents & POLLIN) != 0) return false;
    char events[4096];
    if ((waits[0].revents & POLLIN) != 0 && read(watch, events, sizeof(events)) < 0) return false;
  }
  return true;
}

}  // namespace

Daemon::Daemon(pid_t process, std::string address_file)
    : process_(process), address_file_(std::move(address_file)) {}

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const std::string& program,
                                                      const std::string& folder) {
  const std::string address_file = folder + "/address.json";
  const std::string log = folder + "/semshared.log";
  std::filesystem::remove(address_file);
  const Descriptor watch(inotify_init1(IN_CLOEXEC));
  inotify_add_watch(watch.number(), folder.c_str(), IN_CLOSE_WRITE | IN_MOVED_TO);
  const pid_t process = Spawn({program, "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0",
                               "--data_dir=" + folder + "/data", "--device_memory_bytes=134217728",
                               "--address_file=" + address_file},
                              log);
  if (process < 0) return absl::InternalError("fork failed");
  std::unique_ptr<Daemon> daemon(new Daemon(process, address_file));
  const Descriptor ended(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  if (!WaitForFile(address_file, watch.number(), ended.number())) {
    return absl::InternalError(program + " did not start, see " + log);
  }
  return daemon;
}

Daemon::~Daemon() { Stop(SIGKILL); }

int Daemon::Stop(int signal) {
  if (process_ <= 0) return -1;
  kill(process_, signal);
  int state = 0;
  waitpid(process_, &state, 0);
  process_ = 0;
  return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

}  // namespace semshare::client::testing
