// RunUnary: a unary handler's body on the executor.
// Thread-safe: no state.
#ifndef SEMSHARE_SERVER_RPC_UNARY_H_
#define SEMSHARE_SERVER_RPC_UNARY_H_

#include <grpcpp/support/server_callback.h>

#include <utility>

#include "absl/status/status.h"
#include "proto/rpc_status.h"
#include "server/executor.h"

namespace semshare {

// Finishes the call with what `body` returns, or with RESOURCE_EXHAUSTED if too much is queued.
// `after` runs once the answer is on its way: it may touch nothing of the call or its service.
template <typename Body, typename After>
grpc::ServerUnaryReactor* RunUnary(grpc::CallbackServerContext* context, Executor* executor,
                                   Body body, After after) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool queued =
      executor->TrySubmit([context, reactor, body = std::move(body), after = std::move(after)] {
        // A caller that has gone needs no work done.
        const absl::Status status =
            context->IsCancelled() ? absl::CancelledError("the call was cancelled") : body();
        reactor->Finish(ToGrpcStatus(status));
        after();
      });
  if (!queued) {
    reactor->Finish(
        ToGrpcStatus(absl::ResourceExhaustedError("too many calls are queued; retry later")));
  }
  return reactor;
}

template <typename Body>
grpc::ServerUnaryReactor* RunUnary(grpc::CallbackServerContext* context, Executor* executor,
                                   Body body) {
  return RunUnary(context, executor, std::move(body), [] {});
}

}  // namespace semshare

#endif  // SEMSHARE_SERVER_RPC_UNARY_H_
