// Messages of the contract to plain values and back, with the checks that only the contract knows
// (enums, digests, the fingerprint). Everything else is checked by the broker.
// Thread-safe: pure functions.
#ifndef SEMSHARE_SERVER_RPC_CONVERT_H_
#define SEMSHARE_SERVER_RPC_CONVERT_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "semshare/v1/cache_admin.pb.h"
#include "semshare/v1/cache_broker.pb.h"
#include "semshare/v1/model.pb.h"
#include "server/broker.h"
#include "server/transport/kv_view.h"

namespace semshare {

// The fingerprint of a spec: SHA-256 over "semshare.ModelSpec.v1", a zero byte, and the
// deterministic serialisation without its fingerprint.
std::string ComputeFingerprint(const v1::ModelSpec& spec);

// INVALID_ARGUMENT names a field out of its limits; FAILED_PRECONDITION if the fingerprint is not
// that of the spec.
absl::StatusOr<ModelInfo> ToModelInfo(const v1::ModelSpec& spec, const Limits& limits);
// From the stored serialisation.
absl::StatusOr<ModelInfo> ParseModelInfo(std::string_view serialized, const Limits& limits);

absl::StatusOr<PutRequest> ToPutRequest(const v1::BeginPutRequest& request,
                                        const BackendInfo& backend);
v1::BeginPutResponse ToResponse(const PutTicket& ticket);

absl::StatusOr<FindRequest> ToFindRequest(const v1::FindMatchRequest& request);
v1::FindMatchResponse ToResponse(const FindResult& result);

// The transport of a request: INVALID_ARGUMENT for an unknown value, UNIMPLEMENTED for one that the
// backend has not. UNSPECIFIED means inline.
absl::StatusOr<v1::Transport> ToTransport(v1::Transport transport, const BackendInfo& backend);

// A view into `region`. INVALID_ARGUMENT names, after `field`, a plane that is not within it.
absl::StatusOr<KvView> ToKvView(const char* field, const v1::KvView& view, MemorySpan region);

MatchOutcome ToOutcome(const v1::MatchOutcome& outcome);

absl::StatusOr<ShadowCheck> ToShadowCheck(const v1::ReportShadowCheckRequest& request);
v1::ShadowStatsResponse ToResponse(const std::vector<ShadowEntry>& entries);

absl::StatusOr<ReferenceName> ToReferenceName(const v1::ReferenceName& name);
v1::ReferenceInfo ToReferenceInfo(const Reference& reference, std::string_view fingerprint);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_CONVERT_H_
