// Limits of the service. Every request is held to them before any work is done; GetServerInfo
// reports them. Thread-safe: a value.
#ifndef SEMSHARE_SERVER_LIMITS_H_
#define SEMSHARE_SERVER_LIMITS_H_

#include <cstdint>

#include "absl/status/status.h"

namespace semshare {

struct Limits {
  int64_t max_tokens = 131072;                // of a reference or a target
  int64_t max_frame_payload_bytes = 2 << 20;  // below gRPC's default message limit with its header
  int64_t max_segments = 65536;
  int max_references_per_match = 8;
  int max_leases = 256;
  int max_uploads = 64;
  int max_models = 16;
  int64_t max_vocab = 4194304;
  int64_t max_embedding_width = 65536;
  int64_t max_content_tags = 1024;
  int64_t max_tag_digest_bytes = 64;
  int64_t max_alias_bytes = 256;
  int64_t max_probe_samples = 64;
  int max_list_page = 1000;
  int max_prefill_points = 64;  // of a worker's cost model

  absl::Status Validate() const;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_LIMITS_H_
