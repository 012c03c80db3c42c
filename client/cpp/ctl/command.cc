#include "client/cpp/ctl/command.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <ostream>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/ctl/table.h"

namespace semshare::client::ctl {
namespace {

constexpr size_t kReferenceIdBytes = 16;
constexpr size_t kFingerprintBytes = 32;
constexpr size_t kMinPrefixDigits = 4;

bool IsHex(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return absl::ascii_isxdigit(c); });
}

std::string Names(const v1::ListModelsResponse& models) {
  std::string names;
  for (const auto& model : models.models()) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", Hex(model.fingerprint(), 6), " (",
                    model.name(), ")");
  }
  return names.empty() ? "none" : names;
}

// The ways to read REF, the likelier first.
std::vector<v1::ReferenceName> Readings(const std::string& text, const std::string& model) {
  std::vector<v1::ReferenceName> readings;
  const auto add = [&]() -> v1::ReferenceName& {
    readings.emplace_back().set_model(model);
    return readings.back();
  };
  const std::string id = FullId(text, kReferenceIdBytes);
  if (!id.empty()) add().set_reference_id(id);
  add().set_alias(text);
  if (id.empty() && IsHex(text) && text.size() >= kMinPrefixDigits &&
      text.size() < 2 * kReferenceIdBytes) {
    add().set_id_prefix(absl::AsciiStrToLower(text));
  }
  return readings;
}

}  // namespace

absl::Status PrintJson(const google::protobuf::Message& message, std::ostream& out) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) return absl::InternalError(status.ToString());
  out << json;
  if (json.empty() || json.back() != '\n') out << '\n';
  return absl::OkStatus();
}

std::string FullId(const std::string& text, size_t id_bytes) {
  if (text.size() == 2 * id_bytes && IsHex(text)) return absl::HexStringToBytes(text);
  std::string id;
  if (text.size() == (id_bytes + 2) / 3 * 4 && text.back() == '=' &&
      absl::Base64Unescape(text, &id) && id.size() == id_bytes) {
    return id;
  }
  return "";
}

absl::StatusOr<v1::ListModelsResponse::Model> ResolveModel(const Context& context) {
  absl::StatusOr<v1::ListModelsResponse> models = context.client.ListModels();
  if (!models.ok()) return models.status();
  const std::string text = context.arguments.Text("model");
  const std::string full = FullId(text, kFingerprintBytes);
  const std::string prefix = full.empty() ? absl::AsciiStrToLower(text) : Hex(full);
  const v1::ListModelsResponse::Model* found = nullptr;
  for (const auto& model : models->models()) {
    if (Hex(model.fingerprint()).rfind(prefix, 0) != 0) continue;
    if (found != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("--model: '", text, "' fits several models: ", Names(*models)));
    }
    found = &model;
  }
  if (found == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("--model: no model '", text, "'; registered: ", Names(*models)));
  }
  return *found;
}

absl::Status WithReference(const Context& context,
                           const std::function<absl::Status(const v1::ReferenceName&)>& act) {
  std::string model;
  if (context.arguments.Has("model")) {
    absl::StatusOr<v1::ListModelsResponse::Model> found = ResolveModel(context);
    if (!found.ok()) return found.status();
    model = found->fingerprint();
  }
  const std::string& text = context.arguments.positional.at(0);
  if (text.empty()) return UsageError("REF is empty");
  absl::Status status;
  for (const v1::ReferenceName& name : Readings(text, model)) {
    status = act(name);
    if (!absl::IsNotFound(status)) return status;
  }
  return status;
}

absl::StatusOr<int64_t> ServerNowMs(const Client& client) {
  absl::StatusOr<v1::GetServerInfoResponse> info = client.ServerInfo();
  if (!info.ok()) return info.status();
  return info->unix_time_ms();
}

}  // namespace semshare::client::ctl
