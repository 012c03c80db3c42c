// What a command of semsharectl gets and gives, and the lookups that several commands share.
// Not thread-safe: a Context serves one command on one thread. It owns nothing.
#ifndef SEMSHARE_CLIENT_CPP_CTL_COMMAND_H_
#define SEMSHARE_CLIENT_CPP_CTL_COMMAND_H_

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/client.h"
#include "client/cpp/ctl/arguments.h"

namespace semshare::client::ctl {

struct Context {
  const Client& client;
  const Arguments& arguments;
  bool json = false;
  std::ostream& out;
};

struct Command {
  CommandSpec spec;
  // An error is printed by the caller; a command that fails has written nothing to `out` but what
  // was true.
  absl::Status (*run)(const Context& context) = nullptr;
};

std::vector<Command> AdminCommands();
std::vector<Command> KvCommands();

// The message as proto3 JSON, with the contract's field names and with zeros.
absl::Status PrintJson(const google::protobuf::Message& message, std::ostream& out);

// The model that --model names by (a prefix of) its fingerprint, or the only one there is.
// NOT_FOUND or INVALID_ARGUMENT, listing what there is.
absl::StatusOr<v1::ListModelsResponse::Model> ResolveModel(const Context& context);

// Calls `act` with each way to understand REF (the first positional argument) until the broker
// knows one; returns the last answer.
absl::Status WithReference(const Context& context,
                           const std::function<absl::Status(const v1::ReferenceName&)>& act);

// The broker's clock: ages are told by it, so that clocks may differ.
absl::StatusOr<int64_t> ServerNowMs(const Client& client);

// The id in 16 or 32 raw bytes if `text` is its full hexadecimal or base64 form, else empty.
std::string FullId(const std::string& text, size_t id_bytes);

}  // namespace semshare::client::ctl

#endif  // SEMSHARE_CLIENT_CPP_CTL_COMMAND_H_
