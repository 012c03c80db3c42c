// Administration: what is in the cache, and what leaves it.
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/broker.h"

namespace semshare {
namespace {

constexpr size_t kMinPrefixDigits = 4;

}  // namespace

absl::StatusOr<ModelPtr> Broker::ResolveModel(std::string_view tenant,
                                              std::string_view fingerprint) {
  if (!fingerprint.empty()) return models_.Find(tenant, fingerprint);
  const std::vector<ModelPtr> models = models_.List(tenant);
  if (models.empty()) return absl::NotFoundError("no model is registered");
  if (models.size() > 1) {
    return absl::InvalidArgumentError("model: several are registered, name one");
  }
  return models[0];
}

absl::StatusOr<ReferencePtr> Broker::Resolve(std::string_view tenant, const ReferenceName& name,
                                             ModelPtr* model) {
  SEMSHARE_ASSIGN_OR_RETURN(*model, ResolveModel(tenant, name.model));
  ReferencePtr reference;
  if (!name.id.empty()) {
    reference = catalog_->Find((*model)->ns, name.id);
  } else if (!name.alias.empty()) {
    reference = catalog_->FindByAlias((*model)->ns, name.alias);
  } else {
    if (name.id_prefix.size() < kMinPrefixDigits) {
      return absl::InvalidArgumentError("id_prefix: at least 4 hexadecimal digits");
    }
    const std::vector<ReferencePtr> found = catalog_->FindByPrefix((*model)->ns, name.id_prefix, 2);
    if (found.size() > 1) return absl::InvalidArgumentError("id_prefix: not unique");
    if (!found.empty()) reference = found[0];
  }
  if (reference == nullptr) return absl::NotFoundError("no such reference");
  return reference;
}

absl::StatusOr<ReferenceDetail> Broker::Describe(std::string_view tenant,
                                                 const ReferenceName& name) {
  ModelPtr model;
  ReferenceDetail detail;
  SEMSHARE_ASSIGN_OR_RETURN(detail.reference, Resolve(tenant, name, &model));
  detail.model = model->info.fingerprint;
  for (const ChunkId& id : detail.reference->manifest.chunks) {
    const ChunkState state = chunks_->Describe(id);
    if (state.quarantined) {
      return absl::DataLossError(absl::StrCat(
          "reference ", detail.reference->manifest.id.ToHex(), ": the record of its chunk ",
          detail.chunks, " (", id.ToHex(), ") is bad; put the prompt again, or delete it"));
    }
    ++detail.chunks;
    detail.shared_chunks += state.references > 1 ? 1 : 0;
    detail.device_bytes += state.resident ? state.bytes : 0;
    detail.disk_bytes += state.durable ? state.bytes : 0;
  }
  return detail;
}

absl::Status Broker::SetPinned(std::string_view tenant, const ReferenceName& name, bool pinned) {
  ModelPtr model;
  SEMSHARE_ASSIGN_OR_RETURN(const ReferencePtr reference, Resolve(tenant, name, &model));
  return catalog_
      ->Update(model->ns, reference->manifest.id,
               [pinned](Manifest* manifest) { manifest->pinned = pinned; })
      .status();
}

absl::Status Broker::Delete(std::string_view tenant, const ReferenceName& name) {
  ModelPtr model;
  SEMSHARE_ASSIGN_OR_RETURN(const ReferencePtr reference, Resolve(tenant, name, &model));
  absl::Status deleted = catalog_->Delete(model->ns, reference->manifest.id).status();
  SEMSHARE_RETURN_IF_ERROR(SyncIndex(reference->manifest));
  return deleted;
}

// Removes what was decided on, and nothing that was put or edited since; false if it was. From the
// catalog first: where the disk refuses, the reference stays, and is found.
absl::StatusOr<bool> Broker::Remove(const ReferencePtr& reference) {
  const Manifest& manifest = reference->manifest;
  const absl::Status deleted = catalog_->Delete(manifest.ns, manifest.id, reference).status();
  if (absl::IsNotFound(deleted)) return false;
  SEMSHARE_RETURN_IF_ERROR(deleted);
  SEMSHARE_RETURN_IF_ERROR(SyncIndex(manifest));
  return true;
}

absl::Status Broker::RemoveAll(const NamespaceId& ns, int64_t* removed) {
  while (true) {
    const std::vector<ReferencePtr> page =
        catalog_->List(ns, {}, {}, options_.limits.max_list_page);
    if (page.empty()) return absl::OkStatus();
    for (const ReferencePtr& reference : page) {
      SEMSHARE_ASSIGN_OR_RETURN(const bool gone, Remove(reference));
      *removed += gone ? 1 : 0;
    }
  }
}

absl::StatusOr<std::vector<ReferencePtr>> Broker::List(std::string_view tenant,
                                                       std::string_view fingerprint,
                                                       const NamespaceId& after_ns,
                                                       const ReferenceId& after_id, int limit) {
  if (limit < 1 || limit > options_.limits.max_list_page) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_size: expected 1..", options_.limits.max_list_page));
  }
  NamespaceId ns;
  if (!fingerprint.empty()) {
    SEMSHARE_ASSIGN_OR_RETURN(const ModelPtr model, models_.Find(tenant, fingerprint));
    ns = model->ns;
  }
  return catalog_->List(ns, after_ns, after_id, limit);
}

absl::StatusOr<Broker::Deleted> Broker::DeleteTenant(std::string_view tenant) {
  Deleted deleted;
  for (const ModelPtr& model : models_.List(tenant)) {
    SEMSHARE_RETURN_IF_ERROR(RemoveAll(model->ns, &deleted.references));
    SEMSHARE_RETURN_IF_ERROR(models_.Delete(tenant, model->info.fingerprint));
    shadow_.Forget(model->ns);
    ++deleted.models;
    // Puts that committed in between; later ones see that their model is gone.
    SEMSHARE_RETURN_IF_ERROR(RemoveAll(model->ns, &deleted.references));
  }
  return deleted;
}

absl::StatusOr<int64_t> Broker::TrimByTime(std::string_view tenant, int64_t used_before_ms) {
  int64_t removed = 0;
  for (const ModelPtr& model : models_.List(tenant)) {
    ReferenceId after;
    while (true) {
      const std::vector<ReferencePtr> page =
          catalog_->List(model->ns, model->ns, after, options_.limits.max_list_page);
      if (page.empty()) break;
      after = page.back()->manifest.id;
      for (const ReferencePtr& reference : page) {
        if (reference->manifest.pinned || reference->used_unix_ms.load() >= used_before_ms)
          continue;
        SEMSHARE_ASSIGN_OR_RETURN(const bool gone, Remove(reference));
        removed += gone ? 1 : 0;
      }
    }
  }
  return removed;
}

void Broker::RemoveExpired(int64_t now_ms) {
  NamespaceId ns;
  ReferenceId id;
  while (true) {
    const std::vector<ReferencePtr> page =
        catalog_->List({}, ns, id, options_.limits.max_list_page);
    if (page.empty()) return;
    ns = page.back()->manifest.ns;
    id = page.back()->manifest.id;
    for (const ReferencePtr& reference : page) {
      const Manifest& manifest = reference->manifest;
      if (manifest.expires_unix_ms == 0 || manifest.expires_unix_ms > now_ms || manifest.pinned) {
        continue;
      }
      const absl::StatusOr<bool> gone = Remove(reference);
      if (!gone.ok()) {
        ++metrics_.maintenance_errors;
      } else if (*gone) {
        ++metrics_.references_expired;
      }
    }
  }
}

BrokerStats Broker::Stats() const {
  BrokerStats stats;
  stats.models = static_cast<int64_t>(models_.All().size());
  stats.references = catalog_->size();
  stats.chunks = chunks_->stats();
  stats.disk_bytes = disk_->BytesUsed();
  stats.leases = leases_.active();
  stats.regions = regions_.stats();
  stats.shadow_disabled = shadow_.CountDisabled(now_ms());
  stats.draining = draining();
  MutexLock lock(&mutex_);
  stats.uploads = UploadsLocked();
  return stats;
}

std::string Broker::FingerprintOf(const NamespaceId& ns) const {
  const ModelPtr model = models_.FindByNamespace(ns);
  return model == nullptr ? "" : model->info.fingerprint;
}

}  // namespace semshare
