#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <utility>

#include "absl/strings/escaping.h"
#include "kernels/base/status_macros.h"
#include "semshare/v1/cache_broker.grpc.pb.h"
#include "server/rpc/convert.h"
#include "server/rpc/frame_codec.h"
#include "server/rpc/read_stream.h"
#include "server/rpc/region_read_stream.h"
#include "server/rpc/service.h"
#include "server/rpc/tenant.h"
#include "server/rpc/unary.h"
#include "server/rpc/write_stream.h"

namespace semshare {
namespace {

// Bulk methods are raw, so that payloads never pass through protobuf.
using Service = v1::CacheBroker::Service;
using Base = v1::CacheBroker::WithCallbackMethod_GetServerInfo<
    v1::CacheBroker::WithCallbackMethod_GetModel<v1::CacheBroker::WithCallbackMethod_RegisterModel<
        v1::CacheBroker::WithCallbackMethod_BeginPut<v1::CacheBroker::WithRawCallbackMethod_WriteKv<
            v1::CacheBroker::WithCallbackMethod_FindMatch<
                v1::CacheBroker::WithRawCallbackMethod_ReadKv<
                    v1::CacheBroker::WithCallbackMethod_ReleaseMatch<
                        v1::CacheBroker::WithCallbackMethod_ReportShadowCheck<Service>>>>>>>>>;

// A ReadKv that ends before it began.
class RefusedRead final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedRead(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

void LogSwitchedOff(const ShadowCheck& check, const ShadowFigures& figures, int64_t disable_ms) {
  spdlog::warn(
      "shadow checks switched off kind={} model={} for_ms={} mean_kl={} checks={} last_preset={}",
      v1::ResultKind_Name(static_cast<v1::ResultKind>(check.kind)),
      absl::BytesToHexString(check.model), disable_ms, figures.mean_kl, figures.window,
      v1::Preset_Name(static_cast<v1::Preset>(check.preset)));
}

class CacheBrokerService final : public Base {
 public:
  explicit CacheBrokerService(ServiceContext context) : context_(std::move(context)) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* call,
                                          const v1::GetServerInfoRequest*,
                                          v1::GetServerInfoResponse* response) override {
    return RunUnary(call, context_.executor, [this, response] {
      *response = context_.server_info();
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* call,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override {
    return RunUnary(call, context_.executor, [this, request, response]() -> absl::Status {
      SEMSHARE_ASSIGN_OR_RETURN(const bool known,
                                context_.broker->HasModel(kDefaultTenant, request->fingerprint()));
      response->set_known(known);
      return absl::OkStatus();
    });
  }

  grpc::ServerReadReactor<v1::RegisterModelFrame>* RegisterModel(
      grpc::CallbackServerContext* call, v1::RegisterModelResponse* response) override {
    return new RegisterStream(context_.broker, context_.executor, context_.watch, &registrations_,
                              call, response);
  }

  grpc::ServerUnaryReactor* BeginPut(grpc::CallbackServerContext* call,
                                     const v1::BeginPutRequest* request,
                                     v1::BeginPutResponse* response) override {
    return RunUnary(call, context_.executor, [this, request, response]() -> absl::Status {
      SEMSHARE_ASSIGN_OR_RETURN(const PutRequest put,
                                ToPutRequest(*request, context_.broker->backend()->info()));
      SEMSHARE_ASSIGN_OR_RETURN(const PutTicket ticket,
                                context_.broker->BeginPut(kDefaultTenant, put));
      *response = ToResponse(ticket);
      return absl::OkStatus();
    });
  }

  grpc::ServerReadReactor<grpc::ByteBuffer>* WriteKv(grpc::CallbackServerContext* call,
                                                     grpc::ByteBuffer* response) override {
    return new WriteStream(context_.broker, context_.executor, context_.watch, call, response);
  }

  grpc::ServerUnaryReactor* FindMatch(grpc::CallbackServerContext* call,
                                      const v1::FindMatchRequest* request,
                                      v1::FindMatchResponse* response) override {
    // The lease of the match, if there is one: what its first read needs is made once the caller
    // has the answer.
    const auto lease = std::make_shared<MatchLeasePtr>();
    const auto find = [this, call, request, response, lease]() -> absl::Status {
      const auto begin = std::chrono::steady_clock::now();
      SEMSHARE_ASSIGN_OR_RETURN(const FindRequest find, ToFindRequest(*request));
      SEMSHARE_ASSIGN_OR_RETURN(const FindResult result,
                                context_.broker->FindMatch(kDefaultTenant, find));
      *response = ToResponse(result);
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
      context_.broker->metrics().find_seconds.Observe(elapsed.count());
      // Nobody would ever release the lease of a caller that gave up.
      if (call->IsCancelled() && response->has_match()) {
        return context_.broker->ReleaseMatch(kDefaultTenant, response->match().lease_id(), {});
      }
      if (const auto* match = std::get_if<MatchResult>(&result)) *lease = match->lease;
      return absl::OkStatus();
    };
    // Not `this`: once the call has its answer, the service may go before the executor does.
    return RunUnary(call, context_.executor, find, [broker = context_.broker, lease] {
      if (*lease != nullptr) broker->PrepareRead(std::exchange(*lease, nullptr));
    });
  }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* ReadKv(grpc::CallbackServerContext* call,
                                                     const grpc::ByteBuffer* bytes) override {
    v1::ReadKvRequest request;
    absl::Status status = ParseMessage(*bytes, &request);
    const absl::StatusOr<v1::Transport> transport =
        ToTransport(request.transport(), context_.broker->backend()->info());
    if (status.ok()) status = transport.status();
    if (!status.ok()) return new RefusedRead(ToGrpcStatus(status));
    if (*transport != v1::TRANSPORT_INLINE) {
      return new RegionReadStream(context_.broker, context_.executor, context_.watch, call,
                                  std::move(request));
    }
    return new ReadStream(context_.broker, context_.executor, context_.staging, context_.watch,
                          call, std::move(request));
  }

  grpc::ServerUnaryReactor* ReleaseMatch(grpc::CallbackServerContext* call,
                                         const v1::ReleaseMatchRequest* request,
                                         v1::ReleaseMatchResponse*) override {
    return RunUnary(call, context_.executor, [this, request] {
      return context_.broker->ReleaseMatch(kDefaultTenant, request->lease_id(),
                                           ToOutcome(request->outcome()));
    });
  }

  grpc::ServerUnaryReactor* ReportShadowCheck(grpc::CallbackServerContext* call,
                                              const v1::ReportShadowCheckRequest* request,
                                              v1::ReportShadowCheckResponse* response) override {
    return RunUnary(call, context_.executor, [this, request, response]() -> absl::Status {
      SEMSHARE_ASSIGN_OR_RETURN(const ShadowCheck check, ToShadowCheck(*request));
      SEMSHARE_ASSIGN_OR_RETURN(const ShadowMonitor::Verdict verdict,
                                context_.broker->ReportShadowCheck(kDefaultTenant, check));
      if (verdict.newly_disabled) {
        LogSwitchedOff(check, verdict.figures, context_.broker->options().shadow.disable_ms);
      }
      response->set_disabled(verdict.disabled);
      return absl::OkStatus();
    });
  }

 private:
  const ServiceContext context_;
  std::atomic<int> registrations_{0};
};

}  // namespace

std::unique_ptr<grpc::Service> NewCacheBrokerService(const ServiceContext& context) {
  return std::make_unique<CacheBrokerService>(context);
}

}  // namespace semshare
