// The identity of a model, computed as the contract says (see v1::ModelSpec): an engine seals its
// spec once, then registers it.
// Thread-safe: pure functions. Ownership: nothing is kept.
#ifndef SEMSHARE_CLIENT_CPP_MODEL_DIGEST_H_
#define SEMSHARE_CLIENT_CPP_MODEL_DIGEST_H_

#include <string>

#include "absl/types/span.h"
#include "semshare/v1/model.pb.h"

namespace semshare::client {

// 32 bytes, from everything in the spec but its fingerprint.
std::string FingerprintOf(const v1::ModelSpec& spec);

// Sets embedding_digest, token_weights_digest (cleared if there are no weights) and fingerprint.
// Everything else must be set before.
void SealSpec(absl::Span<const float> embedding_table, absl::Span<const float> token_weights,
              v1::ModelSpec* spec);

}  // namespace semshare::client

#endif  // SEMSHARE_CLIENT_CPP_MODEL_DIGEST_H_
