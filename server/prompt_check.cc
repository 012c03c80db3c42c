#include "server/prompt_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

absl::Status CheckTags(const std::vector<ContentTag>& tags, int64_t tokens, const Limits& limits) {
  if (static_cast<int64_t>(tags.size()) > limits.max_content_tags) {
    return absl::InvalidArgumentError(
        absl::StrCat("content_tags: at most ", limits.max_content_tags));
  }
  int64_t last_end = 0;
  for (const ContentTag& tag : tags) {
    if (tag.begin < last_end || tag.begin >= tag.end || tag.end > tokens) {
      return absl::InvalidArgumentError(
          "content_tags.range: ranges must be ascending, disjoint, not empty and inside the "
          "prompt");
    }
    if (tag.digest.empty() ||
        static_cast<int64_t>(tag.digest.size()) > limits.max_tag_digest_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("content_tags.digest: 1..", limits.max_tag_digest_bytes, " bytes"));
    }
    last_end = tag.end;
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const std::vector<uint32_t>& ids, const ModelInfo& info,
                      const Limits& limits) {
  const int64_t tokens = static_cast<int64_t>(ids.size());
  if (tokens < 1 || tokens > limits.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("token_ids: expected 1..", limits.max_tokens, " ids, got ", tokens));
  }
  if (tokens > info.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat(
        "token_ids: ", tokens, " ids, but the model has ", info.max_positions, " positions"));
  }
  const uint32_t largest = *std::max_element(ids.begin(), ids.end());
  if (largest >= info.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("token_ids: ", largest, " is beyond the vocabulary of ", info.vocab_size));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPrompt(const std::vector<uint32_t>& ids, const std::vector<ContentTag>& tags,
                         const ModelInfo& info, const Limits& limits) {
  SEMSHARE_RETURN_IF_ERROR(CheckIds(ids, info, limits));
  return CheckTags(tags, static_cast<int64_t>(ids.size()), limits);
}

}  // namespace semshare
