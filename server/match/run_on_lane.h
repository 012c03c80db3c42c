// RunOnLane: queues work on a borrowed lane and waits for it.
// Thread-safe: no state.
#ifndef SEMSHARE_SERVER_MATCH_RUN_ON_LANE_H_
#define SEMSHARE_SERVER_MATCH_RUN_ON_LANE_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "kernels/backend.h"

namespace semshare {

// Waits for the lane's work whatever `enqueue` returns, because the caller's memory must outlive
// what was queued before a failure. Returns the first error. RESOURCE_EXHAUSTED if no lane becomes
// free within ten seconds.
absl::Status RunOnLane(Backend& backend, absl::FunctionRef<absl::Status(Lane&)> enqueue);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_RUN_ON_LANE_H_
