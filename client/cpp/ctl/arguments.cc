#include "client/cpp/ctl/arguments.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/cpp/ctl/table.h"

namespace semshare::client::ctl {
namespace {

constexpr char kUsagePayload[] = "semshare.ctl.usage";

template <typename Spec>
const Spec* Find(const std::vector<Spec>& specs, const std::string& name) {
  const auto found =
      std::find_if(specs.begin(), specs.end(), [&](const Spec& spec) { return spec.name == name; });
  return found == specs.end() ? nullptr : &*found;
}

// Any command's flag of this name: which command it is may be said later in the line.
const FlagSpec* FindFlag(const std::string& name, const std::vector<FlagSpec>& global_flags,
                         const std::vector<CommandSpec>& commands) {
  const FlagSpec* flag = Find(global_flags, name);
  for (size_t i = 0; flag == nullptr && i < commands.size(); ++i) {
    flag = Find(commands[i].flags, name);
  }
  return flag;
}

absl::Status CheckArguments(const Arguments& arguments, const std::vector<FlagSpec>& global_flags,
                            const std::vector<CommandSpec>& commands) {
  if (arguments.command.empty()) return UsageError("no command");
  const CommandSpec* command = Find(commands, arguments.command);
  if (command == nullptr) {
    return UsageError(absl::StrCat("unknown command '", arguments.command, "'"));
  }
  for (const auto& [name, value] : arguments.flags) {
    if (Find(global_flags, name) == nullptr && Find(command->flags, name) == nullptr) {
      return UsageError(absl::StrCat(command->name, " has no flag --", name));
    }
  }
  if (arguments.positional.size() != command->positional.size()) {
    return UsageError(absl::StrCat(command->name, " takes ", command->positional.size(),
                                   " argument(s), not ", arguments.positional.size()));
  }
  return absl::OkStatus();
}

void PrintFlags(const std::vector<FlagSpec>& flags, std::ostream& out) {
  Properties lines;
  for (const FlagSpec& flag : flags) {
    const std::string value = flag.value.empty() ? "" : absl::StrCat("=", flag.value);
    lines.Add(absl::StrCat("  --", flag.name, value), flag.help);
  }
  lines.Print(out);
}

std::string Synopsis(const CommandSpec& command) {
  std::string text = command.name;
  for (const std::string& name : command.positional) absl::StrAppend(&text, " ", name);
  return text;
}

}  // namespace

absl::Status UsageError(const std::string& message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsagePayload, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) {
  return status.GetPayload(kUsagePayload).has_value();
}

std::string Arguments::Text(const std::string& name, const std::string& otherwise) const {
  const auto found = flags.find(name);
  return found == flags.end() ? otherwise : found->second;
}

absl::StatusOr<std::string> Arguments::Required(const std::string& name) const {
  if (Text(name).empty()) return UsageError(absl::StrCat(command, " needs --", name));
  return Text(name);
}

absl::StatusOr<uint64_t> Arguments::Number(const std::string& name, uint64_t otherwise,
                                           uint64_t largest) const {
  if (!Has(name)) return otherwise;
  uint64_t number = 0;
  if (!absl::SimpleAtoi(Text(name), &number) || number > largest) {
    return UsageError(
        absl::StrCat("--", name, ": '", Text(name), "' is not a number in 0..", largest));
  }
  return number;
}

absl::StatusOr<double> Arguments::Real(const std::string& name, double otherwise) const {
  if (!Has(name)) return otherwise;
  double number = 0;
  if (!absl::SimpleAtod(Text(name), &number) || !std::isfinite(number) || number < 0) {
    return UsageError(absl::StrCat("--", name, ": '", Text(name), "' is not a number >= 0"));
  }
  return number;
}

absl::StatusOr<int64_t> Arguments::Milliseconds(const std::string& name, int64_t otherwise) const {
  if (!Has(name)) return otherwise;
  const std::string text = Text(name);
  absl::Duration duration;
  double days = 0;
  const bool in_days = !text.empty() && text.back() == 'd' &&
                       absl::SimpleAtod(text.substr(0, text.size() - 1), &days);
  if (in_days) duration = days * absl::Hours(24);
  if ((!in_days && !absl::ParseDuration(text, &duration)) || duration < absl::Milliseconds(1) ||
      duration == absl::InfiniteDuration()) {
    return UsageError(
        absl::StrCat("--", name, ": '", text, "' is not a duration like 90s, 12h, 7d"));
  }
  return absl::ToInt64Milliseconds(duration);
}

absl::StatusOr<Arguments> ParseArguments(const std::vector<std::string>& words,
                                         const std::vector<FlagSpec>& global_flags,
                                         const std::vector<CommandSpec>& commands) {
  Arguments arguments;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word.rfind("--", 0) != 0) {
      if (arguments.command.empty()) {
        arguments.command = word;
      } else {
        arguments.positional.push_back(word);
      }
      continue;
    }
    const size_t equals = word.find('=');
    const std::string name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
    const FlagSpec* flag = FindFlag(name, global_flags, commands);
    if (flag == nullptr) return UsageError(absl::StrCat("unknown flag --", name));
    if (flag->value.empty()) {
      if (equals != std::string::npos) {
        return UsageError(absl::StrCat("--", name, " takes no value"));
      }
      arguments.flags[name] = "true";
    } else if (equals != std::string::npos) {
      arguments.flags[name] = word.substr(equals + 1);
    } else if (i + 1 < words.size()) {
      arguments.flags[name] = words[++i];
    } else {
      return UsageError(absl::StrCat("--", name, " needs a value"));
    }
  }
  if (arguments.Has("help")) return arguments;
  absl::Status status = CheckArguments(arguments, global_flags, commands);
  if (!status.ok()) return status;
  return arguments;
}

std::string HelpText(const std::vector<FlagSpec>& global_flags,
                     const std::vector<CommandSpec>& commands) {
  std::ostringstream out;
  out << "Usage: semsharectl [FLAGS] COMMAND [ARGUMENTS]\n\n"
      << "Looks into a semshare broker and works with what it keeps.\n\nCommands:\n";
  Properties lines;
  for (const CommandSpec& command : commands) lines.Add("  " + Synopsis(command), command.help);
  lines.Print(out);
  out << "\nFlags:\n";
  PrintFlags(global_flags, out);
  out << "\nREF is an alias, a full hexadecimal id, a unique prefix of one (4 digits or more), or\n"
      << "an id as --json prints it. 'semsharectl COMMAND --help' tells a command's flags.\n"
      << "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";
  return out.str();
}

std::string CommandHelpText(const CommandSpec& command) {
  std::ostringstream out;
  out << "Usage: semsharectl [FLAGS] " << Synopsis(command) << "\n\n" << command.help << ".\n";
  if (!command.flags.empty()) {
    out << "\nFlags:\n";
    PrintFlags(command.flags, out);
  }
  return out.str();
}

}  // namespace semshare::client::ctl
