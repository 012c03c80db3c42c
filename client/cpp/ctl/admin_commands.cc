// Commands that look at the broker and look after its cache.
#include <ostream>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cpp/ctl/command.h"
#include "client/cpp/ctl/table.h"
#include "semshare/v1/model.pb.h"

namespace semshare::client::ctl {
namespace {

// Bytes of ids in tables: 12 digits, enough to be used as a prefix.
constexpr size_t kShortIdBytes = 6;
constexpr uint32_t kPageSize = 1000;

std::string YesNo(bool value) { return value ? "yes" : "no"; }

std::string State(const v1::ReferenceInfo& info) {
  if (!info.visible()) return "uploading";
  return info.durable() ? "durable" : "memory";
}

std::string DtypeText(v1::Dtype dtype) { return EnumText(v1::Dtype_Name(dtype), "DTYPE_"); }

absl::Status Models(const Context& context) {
  absl::StatusOr<v1::ListModelsResponse> models = context.client.ListModels();
  if (!models.ok()) return models.status();
  if (context.json) return PrintJson(*models, context.out);
  Table table({{"NAME"},
               {"FINGERPRINT"},
               {"LAYERS", Align::kRight},
               {"DTYPE"},
               {"KV/TOKEN", Align::kRight},
               {"REFERENCES", Align::kRight}});
  for (const auto& model : models->models()) {
    table.Add({model.name(), Hex(model.fingerprint(), kShortIdBytes), absl::StrCat(model.layers()),
               DtypeText(model.dtype()), HumanBytes(model.kv_bytes_per_token()),
               HumanCount(model.references())});
  }
  table.Print(context.out);
  return absl::OkStatus();
}

// All pages, at most `limit` references (0: all).
absl::StatusOr<v1::ListResponse> ListAll(const Context& context, const std::string& model,
                                         uint64_t limit) {
  v1::ListRequest request;
  request.set_model(model);
  request.set_page_size(kPageSize);
  v1::ListResponse all;
  do {
    absl::StatusOr<v1::ListResponse> page = context.client.List(request);
    if (!page.ok()) return page.status();
    if (!page->next_page_token().empty() && page->next_page_token() == request.page_token()) {
      return absl::InternalError("List: the broker repeats a page");
    }
    request.set_page_token(page->next_page_token());
    for (v1::ReferenceInfo& info : *page->mutable_references()) {
      *all.add_references() = std::move(info);
      if (limit > 0 && static_cast<uint64_t>(all.references_size()) == limit) return all;
    }
  } while (!request.page_token().empty());
  return all;
}

absl::Status List(const Context& context) {
  absl::StatusOr<uint64_t> limit = context.arguments.Number("limit", 0, UINT32_MAX);
  if (!limit.ok()) return limit.status();
  std::string model;
  if (context.arguments.Has("model")) {
    absl::StatusOr<v1::ListModelsResponse::Model> found = ResolveModel(context);
    if (!found.ok()) return found.status();
    model = found->fingerprint();
  }
  absl::StatusOr<v1::ListResponse> list = ListAll(context, model, *limit);
  if (!list.ok()) return list.status();
  if (context.json) return PrintJson(*list, context.out);
  absl::StatusOr<int64_t> now_ms = ServerNowMs(context.client);
  if (!now_ms.ok()) return now_ms.status();
  Table table({{"ID"},
               {"ALIAS"},
               {"MODEL"},
               {"TOKENS", Align::kRight},
               {"STATE"},
               {"PINNED"},
               {"PRIORITY", Align::kRight},
               {"CREATED"},
               {"USED"},
               {"EXPIRES"}});
  for (const v1::ReferenceInfo& info : list->references()) {
    table.Add({Hex(info.reference_id(), kShortIdBytes), info.alias().empty() ? "-" : info.alias(),
               Hex(info.model(), kShortIdBytes), HumanCount(info.tokens()), State(info),
               YesNo(info.pinned()), absl::StrCat(info.priority()),
               HumanTime(info.created_unix_ms(), *now_ms), HumanTime(info.used_unix_ms(), *now_ms),
               HumanTime(info.expires_unix_ms(), *now_ms)});
  }
  table.Print(context.out);
  return absl::OkStatus();
}

absl::Status Describe(const Context& context) {
  v1::DescribeResponse answer;
  absl::Status status = WithReference(context, [&](const v1::ReferenceName& name) -> absl::Status {
    absl::StatusOr<v1::DescribeResponse> described = context.client.Describe(name);
    if (!described.ok()) return described.status();
    answer = *std::move(described);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (context.json) return PrintJson(answer, context.out);
  absl::StatusOr<int64_t> now_ms = ServerNowMs(context.client);
  if (!now_ms.ok()) return now_ms.status();
  const v1::ReferenceInfo& info = answer.info();
  Properties lines;
  lines.Add("id", Hex(info.reference_id()));
  lines.Add("alias", info.alias().empty() ? "-" : info.alias());
  lines.Add("model", Hex(info.model()));
  lines.Add("tokens", HumanCount(info.tokens()));
  lines.Add("state", State(info));
  lines.Add("pinned", YesNo(info.pinned()));
  lines.Add("priority", absl::StrCat(info.priority()));
  lines.Add("importance stored", YesNo(info.has_importance()));
  lines.Add("chunks", absl::StrCat(HumanCount(answer.chunks()),
                                   ", shared with others: ", HumanCount(answer.shared_chunks())));
  lines.Add("in memory", HumanBytes(answer.device_bytes()));
  lines.Add("on disk", HumanBytes(answer.disk_bytes()));
  lines.Add("created", HumanTime(info.created_unix_ms(), *now_ms));
  lines.Add("used", HumanTime(info.used_unix_ms(), *now_ms));
  lines.Add("expires", HumanTime(info.expires_unix_ms(), *now_ms));
  lines.Print(context.out);
  return absl::OkStatus();
}

// What a command says that has nothing to show.
absl::Status Say(const Context& context, const google::protobuf::Message& answer,
                 const std::string& text) {
  if (context.json) return PrintJson(answer, context.out);
  context.out << text << '\n';
  return absl::OkStatus();
}

absl::Status Delete(const Context& context) {
  absl::Status status = WithReference(
      context, [&](const v1::ReferenceName& name) { return context.client.Delete(name); });
  if (!status.ok()) return status;
  return Say(context, v1::DeleteResponse(),
             absl::StrCat("deleted ", context.arguments.positional[0]));
}

absl::Status SetPinned(const Context& context, bool pinned) {
  absl::Status status = WithReference(
      context, [&](const v1::ReferenceName& name) { return context.client.Pin(name, pinned); });
  if (!status.ok()) return status;
  return Say(context, v1::PinResponse(),
             absl::StrCat(pinned ? "pinned " : "unpinned ", context.arguments.positional[0]));
}

absl::Status Pin(const Context& context) { return SetPinned(context, true); }
absl::Status Unpin(const Context& context) { return SetPinned(context, false); }

std::string KindText(uint32_t kind) {
  const int value = static_cast<int>(kind);
  if (!v1::ResultKind_IsValid(value)) return absl::StrCat(kind);
  return EnumText(v1::ResultKind_Name(static_cast<v1::ResultKind>(value)), "RESULT_KIND_");
}

std::string Results(const v1::StatsResponse& stats) {
  std::string text;
  for (int kind = 1; kind < stats.results_size(); ++kind) {
    if (stats.results(kind) == 0 || !v1::ResultKind_IsValid(kind)) continue;
    absl::StrAppend(&text, text.empty() ? "" : ", ", KindText(static_cast<uint32_t>(kind)), " ",
                    HumanCount(stats.results(kind)));
  }
  return text.empty() ? "-" : text;
}

std::string ShareOf(uint64_t part, uint64_t whole) {
  return whole == 0 ? "-" : HumanShare(static_cast<double>(part) / static_cast<double>(whole));
}

absl::Status Stats(const Context& context) {
  absl::StatusOr<v1::StatsResponse> stats = context.client.Stats();
  if (!stats.ok()) return stats.status();
  if (context.json) return PrintJson(*stats, context.out);
  Properties lines;
  lines.Add("models", HumanCount(stats->models()));
  lines.Add("references", HumanCount(stats->references()));
  lines.Add("chunks", absl::StrCat(HumanCount(stats->chunks()),
                                   ", in memory: ", HumanCount(stats->chunks_resident())));
  lines.Add("memory",
            absl::StrCat(HumanBytes(stats->device_bytes_used()), " of ",
                         HumanBytes(stats->device_bytes_total()), " (",
                         ShareOf(stats->device_bytes_used(), stats->device_bytes_total()), ")"));
  lines.Add("disk", HumanBytes(stats->disk_bytes()));
  lines.Add("leases", HumanCount(stats->leases()));
  lines.Add("uploads", HumanCount(stats->uploads()));
  lines.Add("tokens matched",
            absl::StrCat(HumanCount(stats->tokens_matched()), " of ",
                         HumanCount(stats->tokens_requested()), " (",
                         ShareOf(stats->tokens_matched(), stats->tokens_requested()), ")"));
  lines.Add("results", Results(*stats));
  lines.Add("quarantined chunks", HumanCount(stats->quarantined_chunks()));
  lines.Add("draining", YesNo(stats->draining()));
  lines.Print(context.out);
  return absl::OkStatus();
}

absl::Status ResetShadow(const Context& context, const v1::ResetShadowRequest& request) {
  absl::StatusOr<v1::ResetShadowResponse> answer = context.client.ResetShadow(request);
  if (!answer.ok()) return answer.status();
  return Say(context, *answer,
             absl::StrCat("forgot the checks of ", answer->entries(), " kind(s) of match"));
}

absl::Status PrintShadow(const Context& context, const v1::ShadowStatsResponse& stats) {
  absl::StatusOr<int64_t> now_ms = ServerNowMs(context.client);
  if (!now_ms.ok()) return now_ms.status();
  Table table({{"MODEL"},
               {"KIND"},
               {"CHECKS", Align::kRight},
               {"LATEST", Align::kRight},
               {"MEAN KL", Align::kRight},
               {"LARGEST KL", Align::kRight},
               {"SAME TOKEN", Align::kRight},
               {"STATE"}});
  for (const auto& entry : stats.entries()) {
    const bool known = entry.window() > 0;
    table.Add({Hex(entry.model(), kShortIdBytes), KindText(entry.kind()),
               HumanCount(entry.checks()), absl::StrCat(entry.window()),
               known ? absl::StrFormat("%.5f", entry.mean_kl()) : "-",
               known ? absl::StrFormat("%.5f", entry.largest_kl()) : "-",
               known ? HumanShare(entry.agreement()) : "-",
               entry.disabled()
                   ? absl::StrCat("off, back ", HumanTime(entry.disabled_until_unix_ms(), *now_ms))
                   : "on"});
  }
  table.Print(context.out);
  return absl::OkStatus();
}

absl::Status Shadow(const Context& context) {
  v1::ResetShadowRequest chosen;
  if (context.arguments.Has("kind")) {
    const std::string text = context.arguments.Text("kind");
    v1::ResultKind kind = v1::RESULT_KIND_UNSPECIFIED;
    if (!v1::ResultKind_Parse("RESULT_KIND_" + absl::AsciiStrToUpper(text), &kind) ||
        kind < v1::RESULT_KIND_EXACT_PREFIX || kind > v1::RESULT_KIND_SEMSHAREKV) {
      return UsageError(absl::StrCat("--kind: '", text, "' is no kind of match"));
    }
    chosen.set_kind(static_cast<uint32_t>(kind));
  }
  if (context.arguments.Has("model")) {
    absl::StatusOr<v1::ListModelsResponse::Model> found = ResolveModel(context);
    if (!found.ok()) return found.status();
    chosen.set_model(found->fingerprint());
  }
  if (context.arguments.Has("reset")) return ResetShadow(context, chosen);
  absl::StatusOr<v1::ShadowStatsResponse> stats = context.client.ShadowStats();
  if (!stats.ok()) return stats.status();
  v1::ShadowStatsResponse shown;
  for (v1::ShadowStatsResponse::Entry& entry : *stats->mutable_entries()) {
    if (!chosen.model().empty() && entry.model() != chosen.model()) continue;
    if (chosen.kind() != 0 && entry.kind() != chosen.kind()) continue;
    *shown.add_entries() = std::move(entry);
  }
  if (context.json) return PrintJson(shown, context.out);
  return PrintShadow(context, shown);
}

absl::Status Health(const Context& context) {
  absl::StatusOr<HealthState> state = context.client.Health(context.arguments.Text("service"));
  if (!state.ok()) return state.status();
  constexpr const char* kNames[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
  const char* name = kNames[static_cast<int>(*state)];
  if (context.json) {
    context.out << "{\n \"status\": \"" << name << "\"\n}\n";
  } else {
    context.out << name << '\n';
  }
  if (*state == HealthState::kServing) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the broker is ", name));
}

template <typename Values, typename Name>
std::string EnumList(const Values& values, const Name& name, const std::string& prefix) {
  return absl::StrJoin(values, ", ", [&](std::string* out, int value) {
    absl::StrAppend(out, EnumText(name(value), prefix));
  });
}

std::string LimitsText(const v1::Limits& limits) {
  return absl::StrCat(HumanCount(limits.max_tokens()), " tokens, ",
                      HumanBytes(limits.max_frame_payload_bytes()), " a frame, ",
                      limits.max_segments(), " segments, ", limits.max_references_per_match(),
                      " references a match, ", limits.max_leases(), " leases, ",
                      limits.max_uploads(), " uploads, ", limits.max_models(), " models");
}

absl::Status Info(const Context& context) {
  absl::StatusOr<v1::GetServerInfoResponse> info = context.client.ServerInfo();
  if (!info.ok()) return info.status();
  if (context.json) return PrintJson(*info, context.out);
  Properties lines;
  lines.Add("version", info->version());
  lines.Add("API revision", absl::StrCat(info->api_revision()));
  lines.Add("backend", absl::StrCat(info->backend(), " (", info->device(), ")"));
  lines.Add("gRPC", info->grpc_address());
  lines.Add("metrics", info->metrics_address());
  lines.Add("chunk", absl::StrCat(info->chunk_tokens(), " tokens"));
  lines.Add("codecs", absl::StrJoin(info->codecs(), ", "));
  lines.Add("transports", EnumList(info->transports(), &v1::Transport_Name<int>, "TRANSPORT_"));
  lines.Add("match modes", EnumList(info->modes(), &v1::MatchMode_Name<int>, "MATCH_MODE_"));
  lines.Add("presets", EnumList(info->presets(), &v1::Preset_Name<int>, "PRESET_"));
  lines.Add("limits", LimitsText(info->limits()));
  lines.Print(context.out);
  return absl::OkStatus();
}

absl::Status Trim(const Context& context) {
  absl::StatusOr<std::string> given = context.arguments.Required("before");
  if (!given.ok()) return given.status();
  absl::StatusOr<int64_t> age_ms = context.arguments.Milliseconds("before", 0);
  if (!age_ms.ok()) return age_ms.status();
  absl::StatusOr<int64_t> now_ms = ServerNowMs(context.client);
  if (!now_ms.ok()) return now_ms.status();
  absl::StatusOr<v1::TrimByTimeResponse> answer = context.client.TrimByTime(*now_ms - *age_ms);
  if (!answer.ok()) return answer.status();
  return Say(context, *answer,
             absl::StrCat("removed ", HumanCount(answer->references()),
                          " reference(s) not used for ", HumanDuration(*age_ms)));
}

absl::Status Drain(const Context& context) {
  absl::Status status = context.client.Drain();
  if (!status.ok()) return status;
  return Say(context, v1::DrainResponse(), "draining: new work is refused");
}

}  // namespace

std::vector<Command> AdminCommands() {
  const FlagSpec model = {"model", "FP", "fingerprint, or a prefix of it, of REF's model"};
  return {
      {{"models", {}, "Lists the registered models", {}}, &Models},
      {{"list",
        {},
        "Lists the references",
        {{"model", "FP", "only those of this model"}, {"limit", "N", "at most so many"}}},
       &List},
      {{"describe", {"REF"}, "Tells everything about one reference", {model}}, &Describe},
      {{"delete", {"REF"}, "Removes a reference", {model}}, &Delete},
      {{"pin", {"REF"}, "Keeps a reference in memory and from expiring", {model}}, &Pin},
      {{"unpin", {"REF"}, "Undoes pin", {model}}, &Unpin},
      {{"stats", {}, "Shows what is held and how well it is reused", {}}, &Stats},
      {{"shadow",
        {},
        "Shows what shadow checks found and which kinds of match they switched off",
        {{"reset", "", "forget the checks, and switch on again what they switched off"},
         {"kind", "KIND", "of one kind, such as shifted"},
         {"model", "FP", "of one model, by its fingerprint or a prefix of it"}}},
       &Shadow},
      {{"health",
        {},
        "Asks whether the broker serves; exit code 0 if it does",
        {{"service", "NAME", "one service instead of the whole server"}}},
       &Health},
      {{"info", {}, "Shows version, addresses and limits", {}}, &Info},
      {{"trim",
        {},
        "Removes references that were not used for a time",
        {{"before", "DURATION", "such as 90m, 12h or 7d"}}},
       &Trim},
      {{"drain", {}, "Lets the broker finish what is in flight and refuse new work", {}}, &Drain},
  };
}

}  // namespace semshare::client::ctl
