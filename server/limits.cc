#include "server/limits.h"

namespace semshare {

absl::Status Limits::Validate() const {
  if (max_tokens < 64 || max_tokens > (int64_t{1} << 24)) {
    return absl::InvalidArgumentError("max_tokens must be in 64..16777216");
  }
  if (max_frame_payload_bytes < 4096 || max_frame_payload_bytes > (2 << 20)) {
    return absl::InvalidArgumentError("max_frame_payload_bytes must be in 4096..2097152");
  }
  if (max_references_per_match < 1 || max_segments < 1 || max_leases < 1 || max_uploads < 1 ||
      max_models < 1 || max_list_page < 1 || max_prefill_points < 1) {
    return absl::InvalidArgumentError("every limit must be positive");
  }
  return absl::OkStatus();
}

}  // namespace semshare
