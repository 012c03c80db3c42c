#include "server/rpc/convert.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/match/paper_match.h"

namespace semshare {
namespace {

// An enum of the contract whose values are those of ours; 0 means `unset`.
template <typename Ours, typename Theirs>
absl::StatusOr<Ours> ToEnum(const char* field, Theirs value, int largest, Ours unset) {
  const int number = static_cast<int>(value);
  if (number == 0) return unset;
  if (number < 0 || number > largest) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": unknown value ", number));
  }
  return static_cast<Ours>(number);
}

std::vector<ContentTag> ToTags(const google::protobuf::RepeatedPtrField<v1::ContentTag>& messages) {
  std::vector<ContentTag> tags;
  for (const v1::ContentTag& tag : messages) {
    tags.push_back({tag.range().begin(), tag.range().end(), tag.digest()});
  }
  return tags;
}

void SetRange(const TokenRange& range, v1::TokenRange* message) {
  message->set_begin(static_cast<uint32_t>(range.begin));
  message->set_end(static_cast<uint32_t>(range.end));
}

void SetPlan(const Plan& plan, v1::RecomputePlan* message) {
  message->set_preset(static_cast<v1::Preset>(plan.preset));
  for (const TokenRange& range : plan.mandatory) SetRange(range, message->add_mandatory());
  for (const TokenRange& range : plan.selected) SetRange(range, message->add_selected());
  if (plan.asked_tokens > 0) {
    message->mutable_asked()->set_tokens(static_cast<uint32_t>(plan.asked_tokens));
    for (const PriorRange& prior : plan.asked_prior) {
      v1::PriorRange* added = message->mutable_asked()->add_prior();
      SetRange(prior.range, added->mutable_range());
      added->set_weight(prior.weight);
    }
  }
  if (!plan.recompute_tokens.empty()) {
    v1::SemShareKvSchedule* schedule = message->mutable_semsharekv();
    for (const int64_t tokens : plan.recompute_tokens) {
      schedule->add_recompute_tokens(static_cast<uint32_t>(tokens));
    }
    schedule->set_attention_recovery(plan.paper.attention_recovery);
    schedule->set_hot_weight(plan.paper.hot_weight);
    schedule->set_cold_weight(plan.paper.cold_weight);
    if (plan.paper.retain) {
      schedule->set_alpha_retain(plan.paper.alpha_retain);
      schedule->set_least_retained(plan.paper.least_retained);
    }
  }
  for (const int64_t sentinel : plan.sentinels) {
    message->add_sentinels(static_cast<uint32_t>(sentinel));
  }
  message->set_sentinel_layer(static_cast<uint32_t>(plan.sentinel_layer));
  message->set_sigma_limit(plan.sigma_limit);
  message->set_question_tokens(static_cast<uint32_t>(plan.question_tokens));
}

void SetMatch(const MatchResult& result, v1::Match* message) {
  const MatchLease& lease = *result.lease;
  message->set_lease_id(lease.id);
  message->set_lease_timeout_ms(static_cast<uint32_t>(result.lease_timeout_ms));
  message->set_kind(static_cast<v1::ResultKind>(result.kind));
  for (const ReferencePtr& reference : lease.references) {
    v1::MatchedReference* added = message->add_references();
    added->set_reference_id(reference->manifest.id.ToBytes());
    added->set_tokens(static_cast<uint32_t>(reference->manifest.token_ids.size()));
    added->set_alias(reference->manifest.alias);
  }
  for (const Segment& segment : lease.segments) {
    v1::Segment* added = message->add_segments();
    added->set_target_begin(static_cast<uint32_t>(segment.target_begin));
    added->set_reference(static_cast<uint32_t>(segment.reference));
    added->set_source_begin(static_cast<uint32_t>(segment.source_begin));
    added->set_tokens(static_cast<uint32_t>(segment.tokens));
    added->set_kind(static_cast<v1::SegmentKind>(segment.kind));
    if (result.kind == ResultKind::kFuzzy && segment.kind == SegmentKind::kFuzzy) {
      const uint32_t* ids = lease.references[segment.reference]->manifest.token_ids.data();
      added->mutable_source_ids()->Add(ids + segment.source_begin,
                                       ids + segment.source_begin + segment.tokens);
    }
  }
  message->set_matched_tokens(static_cast<uint32_t>(lease.matched_tokens));
  SetPlan(result.plan, message->mutable_plan());
  v1::PredictedCost* predicted = message->mutable_predicted();
  predicted->set_recomputed_share(result.plan.recomputed_share);
  predicted->set_transfer_bytes(static_cast<uint64_t>(result.transfer_bytes));
  predicted->set_reuse_seconds(result.predicted.reuse_seconds);
  predicted->set_prefill_seconds(result.predicted.prefill_seconds);
}

PaperOptions ToPaperOptions(const v1::SemShareKvOptions& message) {
  PaperOptions paper;
  if (message.has_distance_scale()) paper.distance_scale = message.distance_scale();
  if (message.has_similarity_trigger()) paper.similarity_trigger = message.similarity_trigger();
  if (message.has_high_deviation_share()) {
    paper.high_deviation_share = message.high_deviation_share();
  }
  if (message.has_attention_recovery()) paper.attention_recovery = message.attention_recovery();
  if (message.has_hot_weight()) paper.hot_weight = message.hot_weight();
  if (message.has_cold_weight()) paper.cold_weight = message.cold_weight();
  if (message.has_alpha_recompute()) paper.alpha_recompute = message.alpha_recompute();
  if (message.has_alpha_retain()) paper.alpha_retain = message.alpha_retain();
  if (message.has_retain()) paper.retain = message.retain();
  return paper;
}

}  // namespace

absl::StatusOr<v1::Transport> ToTransport(v1::Transport transport, const BackendInfo& backend) {
  switch (transport) {
    case v1::TRANSPORT_UNSPECIFIED:
    case v1::TRANSPORT_INLINE:
      return v1::TRANSPORT_INLINE;
    case v1::TRANSPORT_SHARED_MEMORY:
      return v1::TRANSPORT_SHARED_MEMORY;
    case v1::TRANSPORT_CUDA_IPC:
      if (backend.opens_peer_memory) return v1::TRANSPORT_CUDA_IPC;
      return absl::UnimplementedError(
          absl::StrCat("transport: cuda_ipc needs --backend=cuda; this broker's is ", backend.name,
                       ", which has inline and shared memory"));
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("transport: unknown value ", static_cast<int>(transport)));
  }
}

absl::StatusOr<KvView> ToKvView(const char* field, const v1::KvView& message, MemorySpan region) {
  KvView view;
  view.layer_stride = message.layer_stride();
  view.region = region;
  view.slots.assign(message.slots().begin(), message.slots().end());
  for (const v1::PlaneView& plane : message.planes()) {
    const auto room = static_cast<uint64_t>(region.bytes);
    if (plane.offset() > room || plane.bytes() > room - plane.offset()) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ".planes[", view.planes.size(), "]: [", plane.offset(), ", +",
                       plane.bytes(), ") is not within the region's ", room, " bytes"));
    }
    PlaneView to;
    to.memory =
        region.Sub(static_cast<int64_t>(plane.offset()), static_cast<int64_t>(plane.bytes()));
    to.block_tokens = std::max<int64_t>(1, plane.block_tokens());
    to.block_stride = plane.block_stride();
    to.token_stride = plane.token_stride();
    to.head_stride = plane.head_stride();
    to.element_stride = plane.element_stride();
    view.planes.push_back(to);
  }
  return view;
}

absl::StatusOr<PutRequest> ToPutRequest(const v1::BeginPutRequest& request,
                                        const BackendInfo& backend) {
  PutRequest put;
  put.model = request.model();
  put.token_ids.assign(request.token_ids().begin(), request.token_ids().end());
  put.tags = ToTags(request.content_tags());
  put.importance.assign(request.importance().begin(), request.importance().end());
  // Larger values turn negative and are refused by the broker.
  put.ttl_ms = request.ttl_ms() > (uint64_t{1} << 50) ? -1 : static_cast<int64_t>(request.ttl_ms());
  put.priority = request.priority() > 255 ? -1 : static_cast<int>(request.priority());
  put.alias = request.alias();
  SEMSHARE_RETURN_IF_ERROR(ToTransport(request.transport(), backend).status());
  switch (request.durability()) {
    case v1::DURABILITY_UNSPECIFIED:
    case v1::DURABILITY_DISK:
      put.durable = true;
      break;
    case v1::DURABILITY_MEMORY:
      put.durable = false;
      break;
    default:
      return absl::InvalidArgumentError("durability: unknown value");
  }
  return put;
}

v1::BeginPutResponse ToResponse(const PutTicket& ticket) {
  v1::BeginPutResponse response;
  response.set_upload_id(ticket.upload_id);
  response.set_reference_id(ticket.reference.ToBytes());
  for (const TokenRange& range : ticket.missing) SetRange(range, response.add_missing());
  response.set_timeout_ms(static_cast<uint32_t>(ticket.timeout_ms));
  response.set_visible(ticket.visible);
  response.set_durable(ticket.durable);
  return response;
}

absl::StatusOr<FindRequest> ToFindRequest(const v1::FindMatchRequest& request) {
  FindRequest find;
  find.model = request.model();
  find.token_ids.assign(request.token_ids().begin(), request.token_ids().end());
  find.tags = ToTags(request.content_tags());
  SEMSHARE_ASSIGN_OR_RETURN(find.mode,
                            ToEnum("mode", request.mode(), v1::MatchMode_MAX, MatchMode::kToken));
  SEMSHARE_ASSIGN_OR_RETURN(find.preset,
                            ToEnum("preset", request.preset(), v1::Preset_MAX, Preset::kAuto));
  find.kl_target = request.kl_target();
  find.max_references =
      request.max_references() > INT16_MAX ? INT16_MAX : static_cast<int>(request.max_references());
  find.minimum_gain = request.minimum_gain();
  find.question_tokens = request.question_tokens();
  if (request.has_semsharekv()) {
    if (find.mode != MatchMode::kSemShareKv) {
      return absl::InvalidArgumentError("semsharekv: goes with MATCH_MODE_SEMSHAREKV only");
    }
    find.paper = ToPaperOptions(request.semsharekv());
  }
  for (const auto& point : request.worker_cost().prefill()) {
    find.cost.prefill.push_back({point.tokens(), point.seconds()});
  }
  find.cost.transfer_bytes_per_second = request.worker_cost().transfer_bytes_per_second();
  return find;
}

v1::FindMatchResponse ToResponse(const FindResult& result) {
  v1::FindMatchResponse response;
  if (const auto* match = std::get_if<MatchResult>(&result)) {
    SetMatch(*match, response.mutable_match());
  } else {
    const NoMatch& miss = std::get<NoMatch>(result);
    response.mutable_no_match()->set_reason(static_cast<v1::NoMatchReason>(miss.reason));
    response.mutable_no_match()->set_detail(miss.detail);
  }
  return response;
}

MatchOutcome ToOutcome(const v1::MatchOutcome& outcome) {
  MatchOutcome value;
  const int kind = static_cast<int>(outcome.kind());
  // An outcome that says nothing counts as unspecified, index 0.
  value.kind = static_cast<ResultKind>(kind < 0 || kind >= kResultKinds ? 0 : kind);
  value.recomputed_token_layers = outcome.recomputed_token_layers();
  value.seconds_saved = outcome.seconds_saved();
  value.fallback_reason = outcome.fallback_reason();
  return value;
}

absl::StatusOr<ShadowCheck> ToShadowCheck(const v1::ReportShadowCheckRequest& request) {
  ShadowCheck check;
  check.model = request.model();
  SEMSHARE_ASSIGN_OR_RETURN(check.kind,
                            ToEnum("kind", request.kind(), v1::ResultKind_MAX, ResultKind::kMiss));
  SEMSHARE_ASSIGN_OR_RETURN(check.preset,
                            ToEnum("preset", request.preset(), v1::Preset_MAX, Preset::kAuto));
  check.kl_first = request.kl_first();
  check.same_token = request.same_token();
  return check;
}

v1::ShadowStatsResponse ToResponse(const std::vector<ShadowEntry>& entries) {
  v1::ShadowStatsResponse response;
  for (const ShadowEntry& entry : entries) {
    v1::ShadowStatsResponse::Entry* added = response.add_entries();
    added->set_model(entry.model);
    added->set_kind(static_cast<uint32_t>(entry.kind));
    added->set_checks(entry.figures.checks);
    added->set_window(static_cast<uint32_t>(entry.figures.window));
    added->set_mean_kl(entry.figures.mean_kl);
    added->set_largest_kl(entry.figures.largest_kl);
    added->set_agreement(entry.figures.agreement);
    added->set_disabled(entry.figures.disabled_until_ms != 0);
    added->set_disabled_until_unix_ms(entry.figures.disabled_until_ms);
  }
  return response;
}

absl::StatusOr<ReferenceName> ToReferenceName(const v1::ReferenceName& name) {
  ReferenceName value;
  value.model = name.model();
  switch (name.name_case()) {
    case v1::ReferenceName::kReferenceId:
      if (name.reference_id().size() != 16) {
        return absl::InvalidArgumentError("reference_id: expected 16 bytes");
      }
      value.id = ReferenceId::FromBytes(name.reference_id());
      break;
    case v1::ReferenceName::kAlias:
      value.alias = name.alias();
      break;
    case v1::ReferenceName::kIdPrefix:
      value.id_prefix = name.id_prefix();
      break;
    case v1::ReferenceName::NAME_NOT_SET:
      return absl::InvalidArgumentError("reference: needs an id, an alias or an id prefix");
  }
  return value;
}

v1::ReferenceInfo ToReferenceInfo(const Reference& reference, std::string_view fingerprint) {
  const Manifest& manifest = reference.manifest;
  v1::ReferenceInfo info;
  info.set_model(std::string(fingerprint));
  info.set_reference_id(manifest.id.ToBytes());
  info.set_alias(manifest.alias);
  info.set_tokens(static_cast<uint32_t>(manifest.token_ids.size()));
  info.set_visible(true);
  info.set_durable(manifest.durable);
  info.set_pinned(manifest.pinned);
  info.set_priority(static_cast<uint32_t>(manifest.priority));
  info.set_has_importance(!manifest.importance.empty());
  info.set_created_unix_ms(manifest.created_unix_ms);
  info.set_used_unix_ms(reference.used_unix_ms.load());
  info.set_expires_unix_ms(manifest.expires_unix_ms);
  return info;
}

}  // namespace semshare
