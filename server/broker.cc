#include "server/broker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

// Kinds of a result that are matches.
constexpr int kMatchKinds = static_cast<int>(ResultKind::kSemShareKv);

}  // namespace

absl::Status BrokerOptions::Validate() const {
  SEMSHARE_RETURN_IF_ERROR(limits.Validate());
  SEMSHARE_RETURN_IF_ERROR(chunks.Validate());
  SEMSHARE_RETURN_IF_ERROR(regions.Validate());
  if (model_memory_bytes <= 0) {
    return absl::InvalidArgumentError("model_memory_bytes must be positive");
  }
  if (lease_timeout_ms <= 0 || lease_memory_ms < 0 || upload_timeout_ms <= 0) {
    return absl::InvalidArgumentError("lease and upload times must be positive");
  }
  if (max_lease_ms < lease_timeout_ms) {
    return absl::InvalidArgumentError("max_lease_ms must not be below lease_timeout_ms");
  }
  if (!(default_kl_target > 0) || !(default_minimum_gain >= 0)) {
    return absl::InvalidArgumentError(
        "default_kl_target must be positive and default_minimum_gain not negative");
  }
  if (!(sigma_limit >= 0)) return absl::InvalidArgumentError("sigma_limit must not be negative");
  SEMSHARE_RETURN_IF_ERROR(shadow.Validate());
  if (!(maximum_recomputed_share > 0)) {
    return absl::InvalidArgumentError("maximum_recomputed_share must be positive");
  }
  if (!(minimum_coverage >= 0 && minimum_coverage <= 1) || minimum_match_tokens < 1) {
    return absl::InvalidArgumentError(
        "minimum_coverage must be in 0..1 and minimum_match_tokens positive");
  }
  return absl::OkStatus();
}

Broker::Broker(const BrokerOptions& options, Backend* backend, DiskTier* disk,
               ModelInfoParser parser, Clock clock)
    : options_(options),
      backend_(backend),
      disk_(disk),
      clock_(std::move(clock)),
      models_(backend, disk, std::move(parser), options.limits, options.model_memory_bytes),
      regions_(options.regions, backend),
      leases_(options.limits.max_leases, options.lease_timeout_ms, options.max_lease_ms,
              options.lease_memory_ms),
      shadow_(options.shadow, options.limits.max_models * kMatchKinds),
      open_uploads_(std::make_shared<std::atomic<int64_t>>(0)) {}

Broker::~Broker() = default;

absl::StatusOr<std::unique_ptr<Broker>> Broker::Create(const BrokerOptions& options,
                                                       Backend* backend, DiskTier* disk,
                                                       ModelInfoParser parser, Clock clock,
                                                       std::vector<std::string>* warnings) {
  SEMSHARE_RETURN_IF_ERROR(options.Validate());
  auto broker = std::unique_ptr<Broker>(
      new Broker(options, backend, disk, std::move(parser), std::move(clock)));
  SEMSHARE_ASSIGN_OR_RETURN(broker->chunks_, ChunkStore::Create(options.chunks, backend, disk));
  broker->catalog_ = std::make_unique<Catalog>(disk, broker->chunks_.get());
  SEMSHARE_RETURN_IF_ERROR(broker->Load(warnings));
  return broker;
}

absl::Status Broker::Load(std::vector<std::string>* warnings) {
  SEMSHARE_ASSIGN_OR_RETURN(*warnings, models_.Load());
  SEMSHARE_ASSIGN_OR_RETURN(const std::vector<ReferencePtr> references, catalog_->Load());
  if (catalog_->bad_manifests() > 0) {
    warnings->push_back(absl::StrCat(catalog_->bad_manifests(), " manifests were quarantined"));
  }
  absl::flat_hash_map<NamespaceId, ModelPtr> by_namespace;
  for (ModelPtr& model : models_.All()) by_namespace[model->ns] = model;
  for (const ReferencePtr& reference : references) {
    const Manifest& manifest = reference->manifest;
    const auto it = by_namespace.find(manifest.ns);
    if (it == by_namespace.end()) continue;  // its model was skipped, with a warning
    SEMSHARE_RETURN_IF_ERROR(
        it->second->index->Add(manifest.id, manifest.token_ids, manifest.signatures));
  }
  return chunks_->SweepOrphans().status();
}

absl::Status Broker::CheckOpen() const {
  if (draining()) return absl::UnavailableError("the broker is draining");
  return absl::OkStatus();
}

absl::StatusOr<bool> Broker::HasModel(std::string_view tenant, std::string_view fingerprint) const {
  const absl::StatusOr<ModelPtr> model = models_.Find(tenant, fingerprint);
  if (model.ok()) return true;
  if (absl::IsNotFound(model.status())) return false;
  return model.status();
}

absl::StatusOr<RegisterResult> Broker::RegisterModel(std::string_view tenant,
                                                     const ModelRegistration& registration) {
  SEMSHARE_RETURN_IF_ERROR(CheckOpen());
  absl::StatusOr<RegisterResult> result = models_.Register(tenant, registration);
  if (absl::IsFailedPrecondition(result.status())) ++metrics_.probe_failures;
  if (!result.ok()) return result;
  // A model whose record was unreadable at start has references that no index knows.
  SEMSHARE_RETURN_IF_ERROR(Reindex(MakeNamespaceId(tenant, registration.info.fingerprint)));
  return result;
}

// Brings the index entry of a reference in line with the catalog, which alone decides whether the
// reference exists; `manifest` is any of it: its id stands for its token ids. Whoever changes the
// catalog calls this afterwards. No lock spans both; a change that comes in between is seen by the
// second look.
absl::Status Broker::SyncIndex(const Manifest& manifest) {
  while (true) {
    const ModelPtr model = models_.FindByNamespace(manifest.ns);
    if (model == nullptr) return absl::OkStatus();  // its index is gone with it
    const ReferencePtr reference = catalog_->Find(manifest.ns, manifest.id);
    if (reference != nullptr) {
      SEMSHARE_RETURN_IF_ERROR(
          model->index->Add(manifest.id, manifest.token_ids, reference->manifest.signatures));
    } else {
      SEMSHARE_RETURN_IF_ERROR(model->index->Remove(manifest.id, manifest.token_ids));
    }
    const bool exists = catalog_->Find(manifest.ns, manifest.id) != nullptr;
    if (exists == (reference != nullptr) && models_.FindByNamespace(manifest.ns) == model) {
      return absl::OkStatus();
    }
  }
}

absl::Status Broker::Reindex(const NamespaceId& ns) {
  const ModelPtr model = models_.FindByNamespace(ns);
  if (model == nullptr || model->index->stats().references == catalog_->size(ns)) {
    return absl::OkStatus();
  }
  ReferenceId after;
  while (true) {
    const std::vector<ReferencePtr> page =
        catalog_->List(ns, ns, after, options_.limits.max_list_page);
    if (page.empty()) return absl::OkStatus();
    after = page.back()->manifest.id;
    for (const ReferencePtr& reference : page) {
      SEMSHARE_RETURN_IF_ERROR(SyncIndex(reference->manifest));
    }
  }
}

std::vector<ModelPtr> Broker::ListModels(std::string_view tenant) const {
  return models_.List(tenant);
}

absl::Status Broker::Maintain() {
  const int64_t now = now_ms();
  metrics_.leases_expired += static_cast<uint64_t>(leases_.Expire(now));
  std::vector<std::unique_ptr<Upload>> dropped;  // destroyed outside of the lock
  {
    MutexLock lock(&mutex_);
    for (auto it = uploads_.begin(); it != uploads_.end();) {
      const auto current = it++;
      if (now <= current->second.deadline_ms) continue;
      dropped.push_back(std::move(current->second.upload));
      uploads_.erase(current);
    }
  }
  metrics_.puts_dropped += dropped.size();
  dropped.clear();
  RemoveExpired(now);
  chunks_->TrimToWatermark();
  absl::Status status = chunks_->CollectGarbage();
  if (!status.ok()) ++metrics_.maintenance_errors;
  return status;
}

}  // namespace semshare
