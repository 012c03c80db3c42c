// Messages of the contract to plain values and back, with the checks that only the contract knows
// (enums, digests, the fingerprint). Everything else is checked by the broker.
// Thread-safe: pure functions.
#ifndef SEMSHARE_SERVER_RPC_CONVERT_H_
#define SEMSHARE_SERVER_RPC_CONVERT_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "semshare/v1/cache_admin.pb.h"
#include "semshare/v1/cache_broker.pb.h"
#include "semshare/v1/model.pb.h"
#include "server/broker.h"

namespace semshare {

// The fingerprint of a spec: SHA-256 over "semshare.ModelSpec.v1", a zero byte, and the
// deterministic serialisation without its fingerprint.
std::string ComputeFingerprint(const v1::ModelSpec& spec);

// INVALID_ARGUMENT names a field out of its limits; FAILED_PRECONDITION if the fingerprint is not
// that of the spec.
absl::StatusOr<ModelInfo> ToModelInfo(const v1::ModelSpec& spec, const Limits& limits);
// From the stored serialisation.
absl::StatusOr<ModelInfo> ParseModelInfo(std::string_view serialized, const Limits& limits);

absl::StatusOr<PutRequest> ToPutRequest(const v1::BeginPutRequest& request);
v1::BeginPutResponse ToResponse(const PutTicket& ticket);

absl::StatusOr<FindRequest> ToFindRequest(const v1::FindMatchRequest& request);
v1::FindMatchResponse ToResponse(const FindResult& result);

MatchOutcome ToOutcome(const v1::MatchOutcome& outcome);

absl::StatusOr<ReferenceName> ToReferenceName(const v1::ReferenceName& name);
v1::ReferenceInfo ToReferenceInfo(const Reference& reference, std::string_view fingerprint);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_CONVERT_H_
