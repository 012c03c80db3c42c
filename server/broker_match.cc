// FindMatch: candidates, alignment, plan, gate, pins, lease. A miss is an answer, never an error.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/broker.h"
#include "server/match/paper_match.h"
#include "server/prompt_check.h"

namespace semshare {
namespace {

constexpr size_t kMaxFallbackReasonBytes = 64;
constexpr int64_t kDefaultQuestionTokens = 20;
// Leases whose rows are made ahead of a read, and the longest of them: about 150 MB in all for rows
// of 128 elements. Others' rows are made by their first read.
constexpr int kMostPrepared = 8;
constexpr int64_t kMostPreparedTokens = 32768;
// Fuzzy partners must estimate at least this cosine.
constexpr double kFuzzySimilarityFloor = 0.5;

// Importance of each target token as the alignment carries it over; empty if no source has any.
std::vector<float> CarryImportance(const Alignment& alignment,
                                   const std::vector<ReferencePtr>& references, int64_t tokens) {
  const bool any = std::any_of(references.begin(), references.end(), [](const ReferencePtr& r) {
    return !r->manifest.importance.empty();
  });
  if (!any) return {};
  std::vector<float> carried(tokens, 0.0f);
  for (const Segment& segment : alignment.segments) {
    const std::vector<float>& source = references[segment.reference]->manifest.importance;
    if (source.empty()) continue;
    std::copy_n(source.begin() + segment.source_begin, segment.tokens,
                carried.begin() + segment.target_begin);
  }
  return carried;
}

// Forgets matches from `end` on: the question is computed anyway, so its rows need not travel, and
// a prompt that differs in its question alone is an exact prefix.
void DropMatchesFrom(int64_t end, Alignment* alignment) {
  std::vector<Segment>& segments = alignment->segments;
  while (!segments.empty() && segments.back().target_begin >= end) segments.pop_back();
  if (!segments.empty()) {
    Segment& last = segments.back();
    last.tokens = std::min(last.tokens, end - last.target_begin);
  }
  alignment->matched_tokens = 0;
  int references = 0;
  for (const Segment& segment : segments) {
    alignment->matched_tokens += segment.tokens;
    references = std::max(references, segment.reference + 1);
  }
  alignment->references.resize(references);
}

// Where nearly the whole prompt is an exact prefix, that prefix alone is taken: the few rows more
// would cost the result its exactness.
constexpr double kExactPrefixShare = 0.9;

void PreferExactPrefix(int64_t tokens, Alignment* alignment) {
  if (alignment->segments.empty()) return;
  const Segment& first = alignment->segments.front();
  if (first.target_begin != 0 || first.source_begin != 0 || first.kind != SegmentKind::kExact) {
    return;
  }
  if (static_cast<double>(first.tokens) < kExactPrefixShare * static_cast<double>(tokens)) return;
  DropMatchesFrom(first.tokens, alignment);
}

int64_t QuestionTokens(const FindRequest& request) {
  const int64_t tokens = static_cast<int64_t>(request.token_ids.size());
  return std::min(tokens,
                  request.question_tokens > 0 ? request.question_tokens : kDefaultQuestionTokens);
}

absl::Status CheckCost(const CostModel& cost, const Limits& limits) {
  if (!(cost.transfer_bytes_per_second >= 0) || !std::isfinite(cost.transfer_bytes_per_second)) {
    return absl::InvalidArgumentError(
        "worker_cost.transfer_bytes_per_second: must be finite and not negative");
  }
  if (static_cast<int>(cost.prefill.size()) > limits.max_prefill_points) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker_cost.prefill: at most ", limits.max_prefill_points, " points"));
  }
  int64_t last = 0;
  for (const CostModel::Point& point : cost.prefill) {
    if (point.tokens <= last || !(point.seconds > 0) || !std::isfinite(point.seconds)) {
      return absl::InvalidArgumentError(
          "worker_cost.prefill: tokens must ascend and seconds be positive");
    }
    last = point.tokens;
  }
  return absl::OkStatus();
}

absl::Status CheckOutcome(const MatchOutcome& outcome) {
  if (!std::isfinite(outcome.seconds_saved)) {
    return absl::InvalidArgumentError("outcome.seconds_saved: must be finite");
  }
  if (outcome.fallback_reason.size() > kMaxFallbackReasonBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("outcome.fallback_reason: at most ", kMaxFallbackReasonBytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Broker::CheckFind(const Model& model, const FindRequest& request) const {
  SEMSHARE_RETURN_IF_ERROR(
      CheckPrompt(request.token_ids, request.tags, model.info, options_.limits));
  const int64_t tokens = static_cast<int64_t>(request.token_ids.size());
  if ((request.mode == MatchMode::kSemShareKv) != (request.preset == Preset::kSemShareKv)) {
    return absl::InvalidArgumentError("mode, preset: SEMSHAREKV goes with SEMSHAREKV only");
  }
  if (request.mode == MatchMode::kFuzzy && !options_.allow_fuzzy) {
    return absl::PermissionDeniedError("mode: fuzzy matching is off by this broker's policy");
  }
  if (!(request.kl_target >= 0) || !std::isfinite(request.kl_target)) {
    return absl::InvalidArgumentError("kl_target: must be finite and not negative");
  }
  if (!(request.minimum_gain >= 0) || !std::isfinite(request.minimum_gain)) {
    return absl::InvalidArgumentError("minimum_gain: must be finite and not negative");
  }
  if (request.max_references < 0 ||
      request.max_references > options_.limits.max_references_per_match) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_references: at most ", options_.limits.max_references_per_match));
  }
  if (request.question_tokens < 0 || request.question_tokens > tokens) {
    return absl::InvalidArgumentError("question_tokens: longer than the prompt");
  }
  if (request.minimum_gain > 0 && request.cost.prefill.empty()) {
    return absl::InvalidArgumentError("minimum_gain: needs worker_cost");
  }
  SEMSHARE_RETURN_IF_ERROR(CheckPaperOptions(request.paper));
  return CheckCost(request.cost, options_.limits);
}

FindResult Broker::Miss(NoMatchReason reason, std::string detail) {
  ++metrics_.results[static_cast<int>(ResultKind::kMiss)];
  ++metrics_.misses[static_cast<int>(reason)];
  return NoMatch{reason, std::move(detail)};
}

absl::StatusOr<FindResult> Broker::FindMatch(std::string_view tenant, const FindRequest& request) {
  SEMSHARE_RETURN_IF_ERROR(CheckOpen());
  SEMSHARE_ASSIGN_OR_RETURN(ModelPtr model, models_.Find(tenant, request.model));
  SEMSHARE_RETURN_IF_ERROR(CheckFind(*model, request));
  const int64_t tokens = static_cast<int64_t>(request.token_ids.size());
  ++metrics_.find_requests;
  metrics_.tokens_requested += static_cast<uint64_t>(tokens);
  if (tokens <= options_.minimum_match_tokens) {
    return Miss(NoMatchReason::kShortPrompt, absl::StrCat(tokens, " tokens"));
  }
  SEMSHARE_ASSIGN_OR_RETURN(Found found, FindSources(*model, request));
  if (found.references.empty()) {
    return Miss(NoMatchReason::kNoCandidate, "no stored prompt is like it");
  }
  const int64_t matched = found.alignment.matched_tokens;
  if (matched < options_.minimum_match_tokens ||
      static_cast<double>(matched) < options_.minimum_coverage * static_cast<double>(tokens)) {
    return Miss(NoMatchReason::kLowCoverage,
                absl::StrCat(matched, " of ", tokens, " tokens are covered"));
  }
  return Finish(std::move(model), tenant, request, std::move(found));
}

absl::StatusOr<std::vector<Candidate>> Broker::FindCandidates(const Model& model,
                                                              const FindRequest& request) const {
  const auto signatures = [&] { return model.space->Signatures(request.token_ids); };
  if (request.mode != MatchMode::kSemShareKv) {
    return model.index->QueryOnDemand(request.token_ids, signatures);
  }
  // The paper's mode chooses by meaning alone.
  SEMSHARE_ASSIGN_OR_RETURN(const std::vector<uint64_t> given, signatures());
  return model.index->Query(request.token_ids, given);
}

absl::StatusOr<Broker::Found> Broker::FindSources(const Model& model, const FindRequest& request) {
  SEMSHARE_ASSIGN_OR_RETURN(const std::vector<Candidate> candidates,
                            FindCandidates(model, request));
  std::vector<ReferencePtr> sources;
  int best_distance = kSignatureBits;
  int best_source = 0;
  const int64_t now = now_ms();
  for (const Candidate& candidate : candidates) {
    ReferencePtr reference = catalog_->Find(model.ns, candidate.id);
    if (reference == nullptr) continue;  // deleted since
    const int64_t expires = reference->manifest.expires_unix_ms;
    if (expires != 0 && expires <= now && !reference->manifest.pinned) continue;
    if (candidate.signature_distance < best_distance) {
      best_distance = candidate.signature_distance;
      best_source = static_cast<int>(sources.size());
    }
    sources.push_back(std::move(reference));
  }
  if (sources.empty()) return Found{};
  if (request.mode == MatchMode::kSemShareKv) {
    return AlignPaper(model, request, {sources[best_source]}, best_distance);
  }
  std::vector<PromptView> views;
  for (const ReferencePtr& source : sources) {
    views.push_back({source->manifest.token_ids, source->manifest.tags});
  }
  AlignOptions options;
  options.mode = request.mode;
  options.max_references = request.max_references > 0 ? request.max_references
                                                      : options_.limits.max_references_per_match;
  options.max_segments = options_.limits.max_segments;
  FuzzyMatcher fuzzy;
  if (request.mode == MatchMode::kFuzzy) fuzzy = MakeFuzzyMatcher(model, request, sources);
  Found found;
  found.alignment = Align({request.token_ids, request.tags}, views, options, fuzzy);
  DropMatchesFrom(static_cast<int64_t>(request.token_ids.size()) - QuestionTokens(request),
                  &found.alignment);
  PreferExactPrefix(static_cast<int64_t>(request.token_ids.size()), &found.alignment);
  for (const int index : found.alignment.references) found.references.push_back(sources[index]);
  return found;
}

absl::StatusOr<Broker::Found> Broker::AlignPaper(const Model& model, const FindRequest& request,
                                                 std::vector<ReferencePtr> sources, int distance) {
  if (PaperSimilarity(distance, request.paper) < request.paper.similarity_trigger) return Found{};
  Found found;
  SEMSHARE_ASSIGN_OR_RETURN(
      found.alignment,
      PaperAlign({request.token_ids, request.tags},
                 {sources[0]->manifest.token_ids, sources[0]->manifest.tags}, *model.space));
  found.references = std::move(sources);
  return found;
}

// Nearest neighbour by codes of RoPE'd embeddings, the source at its offset-corrected position.
// Tokens that occur once in the target are never fuzzy: names, numbers and identifiers are such.
FuzzyMatcher Broker::MakeFuzzyMatcher(const Model& model, const FindRequest& request,
                                      const std::vector<ReferencePtr>& sources) {
  return [&model, &request, &sources](absl::Span<const FuzzyQuery> queries) {
    std::vector<int64_t> answers(queries.size(), -1);
    absl::flat_hash_map<uint32_t, int> occurrences;
    for (const uint32_t id : request.token_ids) ++occurrences[id];
    std::vector<uint32_t> query_ids;
    std::vector<uint32_t> source_ids;
    std::vector<int64_t> query_positions;
    std::vector<int64_t> source_positions;
    std::vector<int64_t> windows;
    for (const FuzzyQuery& query : queries) {
      const std::vector<uint32_t>& ids = sources[query.reference]->manifest.token_ids;
      const int64_t delta = query.target - query.predicted_source;
      query_ids.push_back(request.token_ids[query.target]);
      query_positions.push_back(query.target);
      windows.push_back(static_cast<int64_t>(source_ids.size()));
      const bool rare = occurrences[query_ids.back()] < 2;
      for (int64_t s = query.source_begin; !rare && s < query.source_end; ++s) {
        source_ids.push_back(ids[s]);
        source_positions.push_back(std::max<int64_t>(s + delta, 0));
      }
      windows.push_back(static_cast<int64_t>(source_ids.size()));
    }
    if (source_ids.empty()) return answers;
    const auto query_codes = model.space->TokenCodes(query_ids, query_positions);
    const auto source_codes = model.space->TokenCodes(source_ids, source_positions);
    if (!query_codes.ok() || !source_codes.ok()) return answers;
    const auto nearest = model.space->NearestCodes(*query_codes, *source_codes, windows);
    if (!nearest.ok()) return answers;
    for (size_t q = 0; q < queries.size(); ++q) {
      if (nearest->indices[q] < 0) continue;
      if (CodeSimilarity(nearest->distances[q], kSignatureBits) < kFuzzySimilarityFloor) continue;
      answers[q] = queries[q].source_begin + nearest->indices[q] - windows[2 * q];
    }
    return answers;
  };
}

Plan Broker::PlanFor(const Model& model, const FindRequest& request, const Found& found) {
  const int64_t tokens = static_cast<int64_t>(request.token_ids.size());
  const std::vector<float> importance = CarryImportance(found.alignment, found.references, tokens);
  PlanRequest plan;
  plan.target_tokens = tokens;
  plan.layers = model.layout().layers();
  plan.mode = request.mode;
  plan.preset = request.preset;
  plan.kl_target = request.kl_target > 0 ? request.kl_target : options_.default_kl_target;
  plan.question_tokens = QuestionTokens(request);
  plan.importance = importance;
  plan.sigma_limit = options_.sigma_limit;
  plan.paper = request.paper;
  plan.seed = found.references[0]->manifest.id.low;
  return MakePlan(found.alignment, plan);
}

absl::StatusOr<FindResult> Broker::Finish(ModelPtr model, std::string_view tenant,
                                          const FindRequest& request, Found found) {
  const int64_t tokens = static_cast<int64_t>(request.token_ids.size());
  MatchResult result;
  result.kind = KindOf(found.alignment, Summarize(found.alignment, tokens), request.mode);
  const int64_t now = now_ms();
  if (const int64_t until = shadow_.DisabledUntil(model->ns, result.kind, now); until != 0) {
    return Miss(NoMatchReason::kDisabled,
                absl::StrCat("shadow checks switched this kind off for ", until - now, " ms more"));
  }
  result.plan = PlanFor(*model, request, found);
  // An exact prefix costs no fidelity, and the paper's mode has a trigger of its own.
  const bool approximate =
      result.kind != ResultKind::kExactPrefix && result.kind != ResultKind::kSemShareKv;
  if (approximate && result.plan.recomputed_share > options_.maximum_recomputed_share) {
    return Miss(NoMatchReason::kLowCoverage,
                absl::StrCat("a share of ", result.plan.recomputed_share, " would be recomputed"));
  }
  result.transfer_bytes = found.alignment.matched_tokens * model->layout().token_bytes();
  result.predicted =
      PredictCost(request.cost, tokens, result.plan.recomputed_share, result.transfer_bytes);
  const double gain =
      request.minimum_gain > 0 ? request.minimum_gain : options_.default_minimum_gain;
  if (!request.cost.prefill.empty() &&
      result.predicted.prefill_seconds < gain * result.predicted.reuse_seconds) {
    return Miss(NoMatchReason::kCost,
                absl::StrCat("predicted ", result.predicted.reuse_seconds, " s of ",
                             result.predicted.prefill_seconds, " s"));
  }
  const int64_t matched = found.alignment.matched_tokens;
  absl::StatusOr<std::shared_ptr<MatchLease>> lease =
      PinMatch(std::move(model), tenant, tokens, std::move(found));
  if (!lease.ok()) {
    return Miss(NoMatchReason::kChunksUnavailable, lease.status().ToString());
  }
  for (const ReferencePtr& reference : (*lease)->references) {
    reference->used_unix_ms.store(now_ms());
  }
  result.lease = *lease;
  result.lease_timeout_ms = leases_.timeout_ms();
  if (const absl::Status added = leases_.Add(*lease, now_ms()); !added.ok()) {
    return Miss(NoMatchReason::kBusy, added.ToString());
  }
  metrics_.tokens_matched += static_cast<uint64_t>(matched);
  ++metrics_.results[static_cast<int>(result.kind)];
  return result;
}

absl::StatusOr<std::shared_ptr<MatchLease>> Broker::PinMatch(ModelPtr model,
                                                             std::string_view tenant,
                                                             int64_t target_tokens, Found found) {
  auto lease = std::make_shared<MatchLease>();
  lease->id = RandomId();
  lease->tenant = std::string(tenant);
  lease->model = std::move(model);
  lease->references = std::move(found.references);
  lease->segments = std::move(found.alignment.segments);
  lease->target_tokens = target_tokens;
  lease->matched_tokens = found.alignment.matched_tokens;
  for (const ReferencePtr& reference : lease->references) {
    lease->chunk_offsets.emplace_back(reference->manifest.chunks.size(), -1);
  }
  // Each chunk that some row needs, once per reference; references may share chunks.
  std::vector<ChunkId> ids;
  std::vector<std::pair<int, int64_t>> places;
  for (const Segment& segment : lease->segments) {
    const int64_t first = segment.source_begin / kChunkTokens;
    const int64_t last = (segment.source_begin + segment.tokens - 1) / kChunkTokens;
    for (int64_t c = first; c <= last; ++c) {
      int64_t& offset = lease->chunk_offsets[segment.reference][c];
      if (offset != -1) continue;
      offset = 0;
      ids.push_back(lease->references[segment.reference]->manifest.chunks[c]);
      places.emplace_back(segment.reference, c);
    }
  }
  SEMSHARE_ASSIGN_OR_RETURN(lease->pins, chunks_->PinAll(ids));
  for (size_t i = 0; i < places.size(); ++i) {
    lease->chunk_offsets[places[i].first][places[i].second] = lease->pins[i].offset();
  }
  return lease;
}

void Broker::PrepareRead(const MatchLeasePtr& lease) {
  const bool many = ++prepared_ > kMostPrepared;
  std::shared_ptr<void> claim(nullptr, [this](void*) { --prepared_; });
  if (many || lease->matched_tokens > kMostPreparedTokens) return;
  lease->PrepareRows(std::move(claim));
}

absl::StatusOr<MatchLeasePtr> Broker::OpenLease(std::string_view tenant,
                                                std::string_view lease_id) {
  return leases_.Open(tenant, lease_id, now_ms());
}

absl::Status Broker::ReleaseMatch(std::string_view tenant, std::string_view lease_id,
                                  const MatchOutcome& outcome) {
  SEMSHARE_RETURN_IF_ERROR(CheckOutcome(outcome));
  SEMSHARE_ASSIGN_OR_RETURN(const bool ended, leases_.Release(tenant, lease_id, now_ms()));
  if (!ended) return absl::OkStatus();
  ++metrics_.outcomes[static_cast<int>(outcome.kind)];
  metrics_.recomputed_token_layers += outcome.recomputed_token_layers;
  metrics_.saved_seconds.Observe(std::max(0.0, outcome.seconds_saved));
  if (outcome.kind == ResultKind::kFallback) {
    ++(outcome.fallback_reason == "sigma" ? metrics_.fallbacks_sigma : metrics_.fallbacks_other);
  }
  return absl::OkStatus();
}

}  // namespace semshare
