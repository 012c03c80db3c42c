// CheckPrompt: the rules for the token ids and content tags of a reference or a target.
// Thread-safe: a pure function.
#ifndef SEMSHARE_SERVER_PROMPT_CHECK_H_
#define SEMSHARE_SERVER_PROMPT_CHECK_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/limits.h"
#include "server/model.h"
#include "storage/ids.h"

namespace semshare {

// INVALID_ARGUMENT, naming the field: no ids or too many, more than the model has positions, an id
// beyond the vocabulary; tags that overlap, leave the prompt, are too many or have a bad digest.
absl::Status CheckPrompt(const std::vector<uint32_t>& ids, const std::vector<ContentTag>& tags,
                         const ModelInfo& info, const Limits& limits);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_PROMPT_CHECK_H_
