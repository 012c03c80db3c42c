// The command line of semsharectl: global flags, one command, its flags and its positional
// arguments, in any order. Flags are --name=value or --name value; nothing comes from the
// environment.
// Thread-safe: pure functions; Arguments is a value. Ownership: everything is copied.
#ifndef SEMSHARE_CLIENT_CPP_CTL_ARGUMENTS_H_
#define SEMSHARE_CLIENT_CPP_CTL_ARGUMENTS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace semshare::client::ctl {

struct FlagSpec {
  std::string name;
  // What stands for the value in the help; empty: a switch without value.
  std::string value;
  std::string help;
};

struct CommandSpec {
  std::string name;
  // Names of the positional arguments, all required.
  std::vector<std::string> positional;
  std::string help;
  std::vector<FlagSpec> flags;
};

// A mistake in the command line (exit code 2), told apart from a failed command (exit code 1).
absl::Status UsageError(const std::string& message);
bool IsUsageError(const absl::Status& status);

class Arguments {
 public:
  std::string command;
  std::vector<std::string> positional;
  // By name; a switch is "true".
  std::map<std::string, std::string> flags;

  bool Has(const std::string& name) const { return flags.count(name) > 0; }

  // The flag's value or `otherwise`.
  std::string Text(const std::string& name, const std::string& otherwise = "") const;

  // Usage errors if the value is missing, no number, or too large.
  absl::StatusOr<std::string> Required(const std::string& name) const;
  absl::StatusOr<uint64_t> Number(const std::string& name, uint64_t otherwise,
                                  uint64_t largest) const;
  absl::StatusOr<double> Real(const std::string& name, double otherwise) const;
  // As absl::ParseDuration, and days ("7d"); must be above 0.
  absl::StatusOr<int64_t> Milliseconds(const std::string& name, int64_t otherwise) const;
};

// Usage errors for unknown commands and flags, missing values and wrong numbers of arguments. With
// --help anything goes.
absl::StatusOr<Arguments> ParseArguments(const std::vector<std::string>& words,
                                         const std::vector<FlagSpec>& global_flags,
                                         const std::vector<CommandSpec>& commands);

// All commands, or one with its flags.
std::string HelpText(const std::vector<FlagSpec>& global_flags,
                     const std::vector<CommandSpec>& commands);
std::string CommandHelpText(const CommandSpec& command);

}  // namespace semshare::client::ctl

#endif  // SEMSHARE_CLIENT_CPP_CTL_ARGUMENTS_H_
