#include "server/match/run_on_lane.h"

#include "absl/time/time.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

constexpr absl::Duration kLaneTimeout = absl::Seconds(10);

}  // namespace

absl::Status RunOnLane(Backend& backend, absl::FunctionRef<absl::Status(Lane&)> enqueue) {
  SEMSHARE_ASSIGN_OR_RETURN(Lane lane, backend.AcquireLane(kLaneTimeout));
  const absl::Status queued = enqueue(lane);
  SEMSHARE_ASSIGN_OR_RETURN(const Event done, backend.Record(lane));
  const absl::Status worked = done.Wait();
  return queued.ok() ? worked : queued;
}

}  // namespace semshare
