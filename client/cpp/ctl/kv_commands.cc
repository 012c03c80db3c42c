// Commands that store, find and read caches.
#include <google/protobuf/struct.pb.h>

#include <chrono>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/cpp/ctl/command.h"
#include "client/cpp/ctl/files.h"
#include "client/cpp/ctl/table.h"

namespace semshare::client::ctl {
namespace {

constexpr int kMaxShownSegments = 20;
constexpr uint64_t kMaxPriority = 255;
constexpr size_t kShortIdBytes = 6;

// The value of an enum by its name without prefix, in any case.
template <typename Enum, typename Parse>
absl::StatusOr<Enum> EnumFlag(const Arguments& arguments, const std::string& name,
                              const std::string& prefix, const Parse& parse) {
  Enum value{};
  if (!arguments.Has(name)) return value;
  const std::string text = arguments.Text(name);
  if (!parse(prefix + absl::AsciiStrToUpper(text), &value)) {
    return UsageError(absl::StrCat("--", name, ": '", text, "' is not known"));
  }
  return value;
}

// Row sizes of the model's planes. The broker tells a token's size only, so planes that are not
// two equal ones have to be named.
absl::StatusOr<KvShape> ShapeFor(const Arguments& arguments,
                                 const v1::ListModelsResponse::Model& model) {
  if (model.layers() == 0) return absl::InternalError("the broker lists a model without layers");
  std::vector<int64_t> planes;
  for (const absl::string_view word :
       absl::StrSplit(arguments.Text("plane_bytes"), ',', absl::SkipEmpty())) {
    int64_t bytes = 0;
    if (!absl::SimpleAtoi(word, &bytes) || bytes <= 0 || bytes > kMaxFramePayloadBytes) {
      return UsageError(absl::StrCat("--plane_bytes: '", word, "' is no row size"));
    }
    planes.push_back(bytes);
  }
  if (planes.empty()) {
    planes.assign(2, static_cast<int64_t>(model.kv_bytes_per_token() / model.layers() / 2));
  }
  KvShape shape = UniformShape(model.layers(), planes);
  if (shape.BytesPerToken() != static_cast<int64_t>(model.kv_bytes_per_token())) {
    return absl::InvalidArgumentError(
        absl::StrCat("--plane_bytes: the planes hold ", shape.BytesPerToken(),
                     " bytes a token, the model ", model.kv_bytes_per_token()));
  }
  return shape;
}

void SetNumber(const std::string& name, double value, google::protobuf::Struct* to) {
  (*to->mutable_fields())[name].set_number_value(value);
}

void SetText(const std::string& name, const std::string& value, google::protobuf::Struct* to) {
  (*to->mutable_fields())[name].set_string_value(value);
}

absl::StatusOr<v1::BeginPutRequest> PutRequest(const Context& context) {
  const Arguments& arguments = context.arguments;
  absl::StatusOr<uint64_t> ttl_ms = arguments.Number("ttl_ms", 0, INT64_MAX);
  if (!ttl_ms.ok()) return ttl_ms.status();
  absl::StatusOr<uint64_t> priority = arguments.Number("priority", 0, kMaxPriority);
  if (!priority.ok()) return priority.status();
  absl::StatusOr<v1::Durability> durability = EnumFlag<v1::Durability>(
      arguments, "durability", "DURABILITY_", [](const std::string& name, v1::Durability* value) {
        return v1::Durability_Parse(name, value);
      });
  if (!durability.ok()) return durability.status();
  absl::StatusOr<std::string> path = arguments.Required("ids");
  if (!path.ok()) return path.status();
  absl::StatusOr<std::vector<uint32_t>> ids = ReadTokenIds(*path);
  if (!ids.ok()) return ids.status();
  v1::BeginPutRequest request;
  request.mutable_token_ids()->Add(ids->begin(), ids->end());
  request.set_ttl_ms(*ttl_ms);
  request.set_priority(static_cast<uint32_t>(*priority));
  request.set_durability(*durability);
  request.set_alias(arguments.Text("alias"));
  request.set_transport(v1::TRANSPORT_INLINE);
  return request;
}

absl::Status PrintPut(const Context& context, const PutResult& result, int tokens) {
  if (context.json) {
    google::protobuf::Struct answer;
    SetText("reference_id", Hex(result.reference_id), &answer);
    SetNumber("tokens", tokens, &answer);
    SetNumber("sent_tokens", result.sent_tokens, &answer);
    SetNumber("sent_bytes", static_cast<double>(result.sent_bytes), &answer);
    (*answer.mutable_fields())["visible"].set_bool_value(result.visible);
    (*answer.mutable_fields())["durable"].set_bool_value(result.durable);
    return PrintJson(answer, context.out);
  }
  Properties lines;
  lines.Add("id", Hex(result.reference_id));
  lines.Add("tokens", absl::StrCat(HumanCount(static_cast<uint64_t>(tokens)),
                                   ", sent: ", HumanCount(result.sent_tokens)));
  lines.Add("sent", HumanBytes(static_cast<uint64_t>(result.sent_bytes)));
  lines.Add("state", result.durable ? "durable" : (result.visible ? "memory" : "not visible"));
  lines.Print(context.out);
  return absl::OkStatus();
}

absl::Status Put(const Context& context) {
  absl::StatusOr<std::string> path = context.arguments.Required("kv");
  if (!path.ok()) return path.status();
  absl::StatusOr<v1::BeginPutRequest> request = PutRequest(context);
  if (!request.ok()) return request.status();
  absl::StatusOr<v1::ListModelsResponse::Model> model = ResolveModel(context);
  if (!model.ok()) return model.status();
  request->set_model(model->fingerprint());
  absl::StatusOr<KvShape> shape = ShapeFor(context.arguments, *model);
  if (!shape.ok()) return shape.status();
  absl::StatusOr<KvFile> file =
      KvFile::Open(*path, *shape, static_cast<uint32_t>(request->token_ids_size()));
  if (!file.ok()) return file.status();
  absl::StatusOr<PutResult> result = context.client.Put(
      *request, *shape,
      [&](const RowRange& range, absl::Span<char> rows) { return file->Read(range, rows); });
  if (!result.ok()) return result.status();
  return PrintPut(context, *result, request->token_ids_size());
}

absl::StatusOr<v1::FindMatchRequest> FindRequest(const Context& context) {
  const Arguments& arguments = context.arguments;
  absl::StatusOr<v1::MatchMode> mode = EnumFlag<v1::MatchMode>(
      arguments, "mode", "MATCH_MODE_", [](const std::string& name, v1::MatchMode* value) {
        return v1::MatchMode_Parse(name, value);
      });
  if (!mode.ok()) return mode.status();
  absl::StatusOr<v1::Preset> preset = EnumFlag<v1::Preset>(
      arguments, "preset", "PRESET_",
      [](const std::string& name, v1::Preset* value) { return v1::Preset_Parse(name, value); });
  if (!preset.ok()) return preset.status();
  absl::StatusOr<double> kl_target = arguments.Real("kl_target", 0);
  if (!kl_target.ok()) return kl_target.status();
  absl::StatusOr<std::string> path = arguments.Required("ids");
  if (!path.ok()) return path.status();
  absl::StatusOr<std::vector<uint32_t>> ids = ReadTokenIds(*path);
  if (!ids.ok()) return ids.status();
  absl::StatusOr<v1::ListModelsResponse::Model> model = ResolveModel(context);
  if (!model.ok()) return model.status();
  v1::FindMatchRequest request;
  request.set_model(model->fingerprint());
  request.mutable_token_ids()->Add(ids->begin(), ids->end());
  request.set_mode(*mode);
  request.set_preset(*preset);
  request.set_kl_target(*kl_target);
  // The paper's retrieval and its schedule only go together.
  if (*mode == v1::MATCH_MODE_SEMSHAREKV || *preset == v1::PRESET_SEMSHAREKV) {
    if (!arguments.Has("mode")) request.set_mode(v1::MATCH_MODE_SEMSHAREKV);
    if (!arguments.Has("preset")) request.set_preset(v1::PRESET_SEMSHAREKV);
  }
  return request;
}

template <typename Ranges>
std::string RangesText(const Ranges& ranges) {
  uint64_t tokens = 0;
  for (const v1::TokenRange& range : ranges) tokens += range.end() - range.begin();
  return absl::StrCat(HumanCount(tokens), " tokens in ", ranges.size(), " range(s)");
}

void PrintPlan(const v1::RecomputePlan& plan, std::ostream& out) {
  Properties lines;
  lines.Add("preset", EnumText(v1::Preset_Name(plan.preset()), "PRESET_"));
  lines.Add("mandatory", RangesText(plan.mandatory()));
  if (!plan.selected().empty()) lines.Add("selected", RangesText(plan.selected()));
  if (plan.has_asked()) {
    lines.Add("asked", absl::StrCat("the ", HumanCount(plan.asked().tokens()), " most important"));
  }
  if (plan.has_semsharekv()) {
    const auto& counts = plan.semsharekv().recompute_tokens();
    lines.Add("schedule", counts.empty()
                              ? "empty"
                              : absl::StrCat(HumanCount(*counts.begin()), " tokens at layer 0 to ",
                                             HumanCount(*counts.rbegin()), " at the last"));
  }
  if (!plan.sentinels().empty()) {
    lines.Add("sentinels",
              absl::StrFormat("%d, at layer %d, fall back above sigma %.3g", plan.sentinels_size(),
                              plan.sentinel_layer(), plan.sigma_limit()));
  }
  lines.Add("question", absl::StrCat(HumanCount(plan.question_tokens()), " tokens"));
  lines.Print(out);
}

void PrintReferences(const v1::Match& match, std::ostream& out) {
  Table table({{"REFERENCE", Align::kRight}, {"ID"}, {"ALIAS"}, {"TOKENS", Align::kRight}});
  for (int i = 0; i < match.references_size(); ++i) {
    const v1::MatchedReference& reference = match.references(i);
    table.Add({absl::StrCat(i), Hex(reference.reference_id(), kShortIdBytes),
               reference.alias().empty() ? "-" : reference.alias(),
               HumanCount(reference.tokens())});
  }
  table.Print(out);
}

void PrintSegments(const v1::Match& match, std::ostream& out) {
  Table table({{"TARGET", Align::kRight},
               {"TOKENS", Align::kRight},
               {"REFERENCE", Align::kRight},
               {"SOURCE", Align::kRight},
               {"KIND"}});
  for (int i = 0; i < match.segments_size() && i < kMaxShownSegments; ++i) {
    const v1::Segment& segment = match.segments(i);
    table.Add({absl::StrCat(segment.target_begin()), absl::StrCat(segment.tokens()),
               absl::StrCat(segment.reference()), absl::StrCat(segment.source_begin()),
               EnumText(v1::SegmentKind_Name(segment.kind()), "SEGMENT_KIND_")});
  }
  table.Print(out);
  if (match.segments_size() > kMaxShownSegments) {
    out << "... and " << match.segments_size() - kMaxShownSegments << " more (--json has all)\n";
  }
}

void PrintMatch(const v1::Match& match, int target_tokens, std::ostream& out) {
  Properties lines;
  lines.Add("kind", EnumText(v1::ResultKind_Name(match.kind()), "RESULT_KIND_"));
  lines.Add("matched", absl::StrCat(HumanCount(match.matched_tokens()), " of ",
                                    HumanCount(static_cast<uint64_t>(target_tokens)), " tokens (",
                                    HumanShare(match.matched_tokens() / 1.0 / target_tokens), ")"));
  lines.Add("recomputed", HumanShare(match.predicted().recomputed_share()));
  lines.Add("transfer", HumanBytes(match.predicted().transfer_bytes()));
  lines.Print(out);
  out << "\nplan\n";
  PrintPlan(match.plan(), out);
  out << '\n';
  PrintReferences(match, out);
  out << '\n';
  PrintSegments(match, out);
}

std::string MissText(const v1::NoMatch& miss) {
  std::string text = EnumText(v1::NoMatchReason_Name(miss.reason()), "NO_MATCH_REASON_");
  if (!miss.detail().empty()) absl::StrAppend(&text, " (", miss.detail(), ")");
  return text;
}

absl::Status Find(const Context& context) {
  absl::StatusOr<v1::FindMatchRequest> request = FindRequest(context);
  if (!request.ok()) return request.status();
  absl::StatusOr<FindResult> found = context.client.FindMatch(*request);
  if (!found.ok()) return found.status();
  const bool hit = found->lease.held();
  if (context.json) {
    v1::FindMatchResponse answer;
    if (hit) {
      *answer.mutable_match() = found->lease.match();
    } else {
      *answer.mutable_no_match() = found->no_match;
    }
    absl::Status status = PrintJson(answer, context.out);
    if (!status.ok()) return status;
  } else if (hit) {
    PrintMatch(found->lease.match(), request->token_ids_size(), context.out);
  } else {
    Properties lines;
    lines.Add("kind", "miss");
    lines.Add("reason", MissText(found->no_match));
    lines.Print(context.out);
  }
  return hit ? found->lease.Release({}) : absl::OkStatus();
}

absl::Status PrintRead(const Context& context, const v1::Match& match, int64_t bytes,
                       double seconds) {
  const std::string path = context.arguments.Text("out");
  const std::string kind = EnumText(v1::ResultKind_Name(match.kind()), "RESULT_KIND_");
  if (context.json) {
    google::protobuf::Struct answer;
    SetText("kind", kind, &answer);
    SetText("path", path, &answer);
    SetNumber("rows", match.matched_tokens(), &answer);
    SetNumber("bytes", static_cast<double>(bytes), &answer);
    SetNumber("seconds", seconds, &answer);
    return PrintJson(answer, context.out);
  }
  Properties lines;
  lines.Add("kind", kind);
  lines.Add("rows", HumanCount(match.matched_tokens()));
  lines.Add("bytes", HumanBytes(static_cast<uint64_t>(bytes)));
  lines.Add("seconds", absl::StrFormat("%.3f", seconds));
  lines.Add("file", path);
  lines.Print(context.out);
  return absl::OkStatus();
}

absl::Status Read(const Context& context) {
  absl::StatusOr<std::string> path = context.arguments.Required("out");
  if (!path.ok()) return path.status();
  absl::StatusOr<v1::FindMatchRequest> request = FindRequest(context);
  if (!request.ok()) return request.status();
  absl::StatusOr<FindResult> found = context.client.FindMatch(*request);
  if (!found.ok()) return found.status();
  if (!found->lease.held()) {
    return absl::NotFoundError(absl::StrCat("no match: ", MissText(found->no_match)));
  }
  absl::StatusOr<OutputFile> file = OutputFile::Create(*path);
  if (!file.ok()) return file.status();
  const auto start = std::chrono::steady_clock::now();
  int64_t bytes = 0;
  // Frames come in the order of the file.
  absl::Status status = context.client.Read(
      found->lease, {},
      [&](const RowRange&, absl::Span<const absl::Span<const char>> pieces) -> absl::Status {
        for (const absl::Span<const char> piece : pieces) {
          absl::Status written = file->Append(piece);
          if (!written.ok()) return written;
          bytes += static_cast<int64_t>(piece.size());
        }
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  status = file->Commit();
  if (!status.ok()) return status;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  status = PrintRead(context, found->lease.match(), bytes, seconds.count());
  if (!status.ok()) return status;
  v1::MatchOutcome outcome;
  outcome.set_kind(found->lease.match().kind());
  return found->lease.Release(outcome);
}

}  // namespace

std::vector<Command> KvCommands() {
  const FlagSpec model = {"model", "FP",
                          "fingerprint or a prefix; not needed if there is one model"};
  const FlagSpec ids = {"ids", "FILE", "token ids: decimal, separated by blanks or commas"};
  const std::vector<FlagSpec> find = {
      model,
      ids,
      {"mode", "MODE", "exact_prefix, exact, token (default), fuzzy, semsharekv"},
      {"preset", "PRESET", "auto (default), fast, heads, balanced, faithful, semsharekv"},
      {"kl_target", "NATS", "KL of the first token that is accepted"}};
  std::vector<FlagSpec> read = find;
  read.push_back({"out", "FILE", "where the rows go, [layer][plane][row][head][width]"});
  return {
      {{"put",
        {},
        "Stores a cache from a file",
        {model,
         ids,
         {"kv", "FILE", "raw rows, [layer][plane][token][head][width]"},
         {"plane_bytes", "N,N,..", "bytes of one row of each plane; default: two equal planes"},
         {"alias", "NAME", "a name for the reference"},
         {"ttl_ms", "N", "time to live; 0: no expiry"},
         {"priority", "N", "0..255, higher stays longer in memory"},
         {"durability", "KIND", "disk (default) or memory"}}},
       &Put},
      {{"find", {}, "Shows what could be reused for a prompt", find}, &Find},
      {{"read", {}, "Writes the realigned rows of a match to a file", read}, &Read},
  };
}

}  // namespace semshare::client::ctl
