#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "semshare/v1/cache_admin.grpc.pb.h"
#include "server/rpc/convert.h"
#include "server/rpc/service.h"
#include "server/rpc/tenant.h"
#include "server/rpc/unary.h"

namespace semshare {
namespace {

constexpr int kDefaultPage = 100;
constexpr size_t kPageTokenBytes = 32;  // namespace and id of the last reference

void FillStats(const Broker& broker, const Metrics& metrics, v1::StatsResponse* response) {
  const BrokerStats stats = broker.Stats();
  response->set_models(stats.models);
  response->set_references(stats.references);
  response->set_chunks(stats.chunks.chunks);
  response->set_chunks_resident(stats.chunks.chunks_resident);
  response->set_device_bytes_used(stats.chunks.device_bytes_used);
  response->set_device_bytes_total(stats.chunks.device_bytes_total);
  response->set_disk_bytes(stats.disk_bytes);
  response->set_leases(stats.leases);
  response->set_uploads(stats.uploads);
  response->set_tokens_requested(metrics.tokens_requested.load());
  response->set_tokens_matched(metrics.tokens_matched.load());
  for (const auto& count : metrics.results) response->add_results(count.load());
  response->set_quarantined_chunks(stats.chunks.quarantined_chunks);
  response->set_draining(stats.draining);
}

class CacheAdminService final : public v1::CacheAdmin::CallbackService {
 public:
  explicit CacheAdminService(const ServiceContext& context)
      : broker_(context.broker), executor_(context.executor), on_drain_(context.on_drain) {}

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* call,
                                       const v1::ListModelsRequest*,
                                       v1::ListModelsResponse* response) override {
    return RunUnary(call, executor_, [this, response] {
      for (const ModelPtr& model : broker_->ListModels(kDefaultTenant)) {
        v1::ListModelsResponse::Model* added = response->add_models();
        added->set_name(model->info.name);
        added->set_fingerprint(model->info.fingerprint);
        added->set_layers(static_cast<uint32_t>(model->layout().layers()));
        added->set_dtype(static_cast<v1::Dtype>(model->layout().dtype()));
        added->set_kv_bytes_per_token(static_cast<uint64_t>(model->layout().token_bytes()));
        added->set_references(static_cast<uint64_t>(model->index->stats().references));
      }
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* Pin(grpc::CallbackServerContext* call, const v1::PinRequest* request,
                                v1::PinResponse*) override {
    return RunUnary(call, executor_, [this, request]() -> absl::Status {
      SEMSHARE_ASSIGN_OR_RETURN(const ReferenceName name, ToReferenceName(request->reference()));
      return broker_->SetPinned(kDefaultTenant, name, request->pinned());
    });
  }

  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* call,
                                   const v1::DeleteRequest* request, v1::DeleteResponse*) override {
    return RunUnary(call, executor_, [this, request]() -> absl::Status {
      SEMSHARE_ASSIGN_OR_RETURN(const ReferenceName name, ToReferenceName(request->reference()));
      return broker_->Delete(kDefaultTenant, name);
    });
  }

  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* call, const v1::ListRequest* request,
                                 v1::ListResponse* response) override {
    return RunUnary(call, executor_, [this, request, response]() -> absl::Status {
      NamespaceId ns;
      ReferenceId id;
      if (!request->page_token().empty()) {
        const std::string bytes = absl::HexStringToBytes(request->page_token());
        if (bytes.size() != kPageTokenBytes) {
          return absl::InvalidArgumentError("page_token: is not one of ours");
        }
        ns = NamespaceId::FromBytes(bytes.substr(0, 16));
        id = ReferenceId::FromBytes(bytes.substr(16));
      }
      const int limit =
          request->page_size() == 0 ? kDefaultPage : static_cast<int>(request->page_size());
      SEMSHARE_ASSIGN_OR_RETURN(const std::vector<ReferencePtr> references,
                                broker_->List(kDefaultTenant, request->model(), ns, id, limit));
      for (const ReferencePtr& reference : references) {
        *response->add_references() =
            ToReferenceInfo(*reference, broker_->FingerprintOf(reference->manifest.ns));
      }
      if (static_cast<int>(references.size()) == limit) {
        const Manifest& last = references.back()->manifest;
        response->set_next_page_token(last.ns.ToHex() + last.id.ToHex());
      }
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* call,
                                     const v1::DescribeRequest* request,
                                     v1::DescribeResponse* response) override {
    return RunUnary(call, executor_, [this, request, response]() -> absl::Status {
      SEMSHARE_ASSIGN_OR_RETURN(const ReferenceName name, ToReferenceName(request->reference()));
      SEMSHARE_ASSIGN_OR_RETURN(const ReferenceDetail detail,
                                broker_->Describe(kDefaultTenant, name));
      *response->mutable_info() = ToReferenceInfo(*detail.reference, detail.model);
      response->set_chunks(static_cast<uint32_t>(detail.chunks));
      response->set_shared_chunks(static_cast<uint32_t>(detail.shared_chunks));
      response->set_device_bytes(static_cast<uint64_t>(detail.device_bytes));
      response->set_disk_bytes(static_cast<uint64_t>(detail.disk_bytes));
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* DeleteTenant(grpc::CallbackServerContext* call,
                                         const v1::DeleteTenantRequest* request,
                                         v1::DeleteTenantResponse* response) override {
    return RunUnary(call, executor_, [this, request, response]() -> absl::Status {
      if (!request->confirm()) return absl::InvalidArgumentError("confirm: must be true");
      SEMSHARE_ASSIGN_OR_RETURN(const Broker::Deleted deleted,
                                broker_->DeleteTenant(kDefaultTenant));
      response->set_references(static_cast<uint64_t>(deleted.references));
      response->set_models(static_cast<uint64_t>(deleted.models));
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* TrimByTime(grpc::CallbackServerContext* call,
                                       const v1::TrimByTimeRequest* request,
                                       v1::TrimByTimeResponse* response) override {
    return RunUnary(call, executor_, [this, request, response]() -> absl::Status {
      SEMSHARE_ASSIGN_OR_RETURN(
          const int64_t removed,
          broker_->TrimByTime(kDefaultTenant, request->used_before_unix_ms()));
      response->set_references(static_cast<uint64_t>(removed));
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* Stats(grpc::CallbackServerContext* call, const v1::StatsRequest*,
                                  v1::StatsResponse* response) override {
    return RunUnary(call, executor_, [this, response] {
      FillStats(*broker_, broker_->metrics(), response);
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* ShadowStats(grpc::CallbackServerContext* call,
                                        const v1::ShadowStatsRequest*,
                                        v1::ShadowStatsResponse* response) override {
    return RunUnary(call, executor_, [this, response] {
      *response = ToResponse(broker_->ShadowStats(kDefaultTenant));
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* ResetShadow(grpc::CallbackServerContext* call,
                                        const v1::ResetShadowRequest* request,
                                        v1::ResetShadowResponse* response) override {
    return RunUnary(call, executor_, [this, request, response]() -> absl::Status {
      std::optional<ResultKind> kind;
      if (request->kind() >= kResultKinds) {
        return absl::InvalidArgumentError(absl::StrCat("kind: unknown value ", request->kind()));
      }
      if (request->kind() != 0) kind = static_cast<ResultKind>(request->kind());
      SEMSHARE_ASSIGN_OR_RETURN(const int entries,
                                broker_->ResetShadow(kDefaultTenant, request->model(), kind));
      response->set_entries(static_cast<uint32_t>(entries));
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* call, const v1::DrainRequest*,
                                  v1::DrainResponse*) override {
    return RunUnary(call, executor_, [this] {
      broker_->Drain();
      if (on_drain_) on_drain_();
      return absl::OkStatus();
    });
  }

 private:
  Broker* const broker_;
  Executor* const executor_;
  const std::function<void()> on_drain_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewCacheAdminService(const ServiceContext& context) {
  return std::make_unique<CacheAdminService>(context);
}

}  // namespace semshare
