#include "client/cpp/ctl/run.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <iterator>
#include <memory>
#include <ostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "client/cpp/ctl/arguments.h"
#include "client/cpp/ctl/command.h"
#include "client/cpp/ctl/files.h"

namespace semshare::client::ctl {
namespace {

constexpr int kSuccess = 0;
constexpr int kFailure = 1;
constexpr int kWrongUsage = 2;

std::vector<FlagSpec> GlobalFlags() {
  return {{"address", "HOST:PORT", "the broker (default 127.0.0.1:7700)"},
          {"address_file", "FILE", "take the address from the file that the broker wrote"},
          {"timeout", "DURATION", "longest time for each call, such as 5s"},
          {"json", "", "print JSON"},
          {"help", "", "print this text, or a command's"}};
}

std::vector<Command> AllCommands() {
  std::vector<Command> commands = KvCommands();
  std::vector<Command> admin = AdminCommands();
  commands.insert(commands.end(), std::make_move_iterator(admin.begin()),
                  std::make_move_iterator(admin.end()));
  return commands;
}

std::vector<CommandSpec> Specs(const std::vector<Command>& commands) {
  std::vector<CommandSpec> specs;
  specs.reserve(commands.size());
  for (const Command& command : commands) specs.push_back(command.spec);
  return specs;
}

absl::StatusOr<std::string> AddressFromFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.status();
  google::protobuf::Struct content;
  const auto status = google::protobuf::util::JsonStringToMessage(*text, &content);
  const auto address = content.fields().find("grpc");
  if (!status.ok() || address == content.fields().end() || address->second.string_value().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no JSON with an address in \"grpc\""));
  }
  return address->second.string_value();
}

absl::StatusOr<ClientOptions> OptionsFrom(const Arguments& arguments) {
  ClientOptions options;
  if (arguments.Has("address") && arguments.Has("address_file")) {
    return UsageError("give --address or --address_file, not both");
  }
  options.address = arguments.Text("address", options.address);
  if (arguments.Has("address_file")) {
    absl::StatusOr<std::string> address = AddressFromFile(arguments.Text("address_file"));
    if (!address.ok()) return address.status();
    options.address = *std::move(address);
  }
  if (arguments.Has("timeout")) {
    absl::StatusOr<int64_t> timeout_ms = arguments.Milliseconds("timeout", 0);
    if (!timeout_ms.ok()) return timeout_ms.status();
    options.deadlines = {*timeout_ms, *timeout_ms, *timeout_ms, *timeout_ms};
  }
  return options;
}

int Fail(const absl::Status& status, std::ostream& err) {
  if (IsUsageError(status)) {
    err << "semsharectl: " << std::string(status.message()) << "\nTry 'semsharectl --help'.\n";
    return kWrongUsage;
  }
  err << "semsharectl: " << absl::StatusCodeToString(status.code()) << ": "
      << std::string(status.message()) << '\n';
  return kFailure;
}

const Command* FindCommand(const std::vector<Command>& commands, const std::string& name) {
  for (const Command& command : commands) {
    if (command.spec.name == name) return &command;
  }
  return nullptr;
}

}  // namespace

int Run(const std::vector<std::string>& words, std::ostream& out, std::ostream& err) {
  const std::vector<Command> commands = AllCommands();
  const std::vector<CommandSpec> specs = Specs(commands);
  absl::StatusOr<Arguments> arguments = ParseArguments(words, GlobalFlags(), specs);
  if (!arguments.ok()) return Fail(arguments.status(), err);
  const Command* command = FindCommand(commands, arguments->command);
  if (arguments->Has("help")) {
    out << (command == nullptr ? HelpText(GlobalFlags(), specs) : CommandHelpText(command->spec));
    return kSuccess;
  }
  absl::StatusOr<ClientOptions> options = OptionsFrom(*arguments);
  if (!options.ok()) return Fail(options.status(), err);
  absl::StatusOr<std::unique_ptr<Client>> client = Client::Create(*options);
  if (!client.ok()) return Fail(client.status(), err);
  const Context context = {**client, *arguments, arguments->Has("json"), out};
  absl::Status status = command->run(context);
  out.flush();
  if (status.ok() && !out) status = absl::UnknownError("the output cannot be written");
  return status.ok() ? kSuccess : Fail(status, err);
}

}  // namespace semshare::client::ctl
