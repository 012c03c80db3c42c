// Puts: BeginPut says what is missing and takes memory for it, a stream fills it, Commit publishes
// the chunks, makes them durable, then the manifest, then the index entry. Undone at any point
// before, nothing is left.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/broker.h"
#include "server/prompt_check.h"

namespace semshare {
namespace {

// A reference that is not on disk can only be evicted whole; how many are tried for one put.
constexpr int kMaxEvictionsPerChunk = 16;

}  // namespace

absl::Status Broker::CheckPut(const Model& model, const PutRequest& request) const {
  SEMSHARE_RETURN_IF_ERROR(
      CheckPrompt(request.token_ids, request.tags, model.info, options_.limits));
  const int64_t tokens = static_cast<int64_t>(request.token_ids.size());
  if (!request.importance.empty() && static_cast<int64_t>(request.importance.size()) != tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "importance: expected ", tokens, " numbers or none, got ", request.importance.size()));
  }
  for (const float value : request.importance) {
    if (!std::isfinite(value) || value < 0) {
      return absl::InvalidArgumentError(absl::StrCat("importance: holds ", value));
    }
  }
  if (request.priority < 0 || request.priority > 255) {
    return absl::InvalidArgumentError("priority: expected 0..255");
  }
  if (request.ttl_ms < 0) return absl::InvalidArgumentError("ttl_ms: too large");
  if (static_cast<int64_t>(request.alias.size()) > options_.limits.max_alias_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("alias: at most ", options_.limits.max_alias_bytes, " bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Manifest> Broker::MakeManifest(const Model& model, const PutRequest& request) const {
  Manifest manifest;
  manifest.ns = model.ns;
  manifest.id = MakeReferenceId(model.ns, request.token_ids, request.tags);
  manifest.token_ids = request.token_ids;
  manifest.tags = request.tags;
  manifest.importance = request.importance;
  manifest.chunks = MakeChunkChain(model.ns, request.token_ids, request.tags);
  SEMSHARE_ASSIGN_OR_RETURN(manifest.signatures, model.space->Signatures(request.token_ids));
  manifest.signature_version = kSignatureVersion;
  manifest.alias = request.alias;
  manifest.priority = request.priority;
  manifest.durable = request.durable;
  manifest.chunk_bytes = model.layout().chunk_bytes();
  manifest.created_unix_ms = now_ms();
  manifest.expires_unix_ms = request.ttl_ms == 0 ? 0 : manifest.created_unix_ms + request.ttl_ms;
  return manifest;
}

absl::StatusOr<PutTicket> Broker::BeginPut(std::string_view tenant, const PutRequest& request) {
  SEMSHARE_RETURN_IF_ERROR(CheckOpen());
  SEMSHARE_ASSIGN_OR_RETURN(ModelPtr model, models_.Find(tenant, request.model));
  SEMSHARE_RETURN_IF_ERROR(CheckPut(*model, request));
  if (!request.alias.empty()) {
    const ReferencePtr holder = catalog_->FindByAlias(model->ns, request.alias);
    if (holder != nullptr &&
        holder->manifest.id != MakeReferenceId(model->ns, request.token_ids, request.tags)) {
      return absl::AlreadyExistsError(
          absl::StrCat("alias: names reference ", holder->manifest.id.ToHex()));
    }
  }
  SEMSHARE_ASSIGN_OR_RETURN(Manifest manifest, MakeManifest(*model, request));
  const std::vector<ChunkMeta> metas = MakeChunkMetas(
      manifest.ns, manifest.token_ids, manifest.tags, manifest.chunk_bytes, manifest.priority);
  std::vector<ChunkRef> held = chunks_->FindAll(metas);
  const bool all_held =
      std::none_of(held.begin(), held.end(), [](const ChunkRef& ref) { return ref.id().empty(); });
  if (all_held) return PutHeld(std::move(manifest), std::move(held));

  SEMSHARE_RETURN_IF_ERROR(ClaimUpload());
  absl::StatusOr<std::vector<ChunkDraft>> drafts = ReserveMissing(metas, held);
  if (!drafts.ok()) {
    MutexLock lock(&mutex_);
    --beginning_uploads_;
    return drafts.status();
  }
  PutTicket ticket;
  ticket.upload_id = RandomId();
  ticket.reference = manifest.id;
  ticket.timeout_ms = options_.upload_timeout_ms;
  auto upload = std::make_unique<Upload>(model, std::move(manifest), std::move(held),
                                         *std::move(drafts), arena());
  ticket.missing = upload->missing();
  const int64_t deadline_ms = now_ms() + options_.upload_timeout_ms;
  MutexLock lock(&mutex_);
  --beginning_uploads_;
  uploads_[ticket.upload_id] = {std::string(tenant), deadline_ms, std::move(upload)};
  return ticket;
}

int64_t Broker::UploadsLocked() const {
  return static_cast<int64_t>(uploads_.size()) + beginning_uploads_ + open_uploads_->load();
}

// Counts the upload before its memory is taken, so that no two puts take the last place.
absl::Status Broker::ClaimUpload() {
  MutexLock lock(&mutex_);
  if (UploadsLocked() >= options_.limits.max_uploads) {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", options_.limits.max_uploads, " uploads are in use"));
  }
  ++beginning_uploads_;
  return absl::OkStatus();
}

// Nothing has to be sent: the same prompt again, or a prefix of whole chunks of a longer one.
absl::StatusOr<PutTicket> Broker::PutHeld(Manifest manifest, std::vector<ChunkRef> held) {
  SEMSHARE_ASSIGN_OR_RETURN(const PutResult result, Store(std::move(manifest), std::move(held)));
  PutTicket ticket;
  ticket.reference = result.reference;
  ticket.visible = result.visible;
  ticket.durable = result.durable;
  return ticket;
}

bool Broker::EvictOneMemoryReference() {
  ReferencePtr oldest;
  NamespaceId ns;
  ReferenceId id;
  while (true) {
    const std::vector<ReferencePtr> page =
        catalog_->List({}, ns, id, options_.limits.max_list_page);
    if (page.empty()) break;
    for (const ReferencePtr& reference : page) {
      if (reference->manifest.durable || reference->manifest.pinned) continue;
      if (oldest == nullptr || reference->used_unix_ms.load() < oldest->used_unix_ms.load()) {
        oldest = reference;
      }
    }
    ns = page.back()->manifest.ns;
    id = page.back()->manifest.id;
  }
  if (oldest == nullptr) return false;
  const absl::StatusOr<bool> removed = Remove(oldest);
  if (!removed.ok()) return false;
  if (*removed) ++metrics_.references_evicted;
  return true;  // if it was put again meanwhile, another one may go
}

absl::StatusOr<ChunkDraft> Broker::ReserveOne(const ChunkMeta& meta) {
  absl::StatusOr<ChunkDraft> draft = chunks_->Reserve(meta);
  for (int i = 0; i < kMaxEvictionsPerChunk && absl::IsResourceExhausted(draft.status()); ++i) {
    if (!EvictOneMemoryReference()) break;
    draft = chunks_->Reserve(meta);
  }
  return draft;
}

absl::StatusOr<std::vector<ChunkDraft>> Broker::ReserveMissing(const std::vector<ChunkMeta>& metas,
                                                               const std::vector<ChunkRef>& held) {
  std::vector<ChunkDraft> drafts;
  for (size_t c = 0; c < metas.size(); ++c) {
    if (!held[c].id().empty()) continue;
    SEMSHARE_ASSIGN_OR_RETURN(ChunkDraft draft, ReserveOne(metas[c]));
    drafts.push_back(std::move(draft));
  }
  return drafts;
}

absl::StatusOr<std::unique_ptr<Upload>> Broker::TakeUpload(std::string_view tenant,
                                                           std::string_view upload_id) {
  MutexLock lock(&mutex_);
  const auto it = uploads_.find(std::string(upload_id));
  if (it == uploads_.end() || it->second.tenant != tenant) {
    return absl::NotFoundError("upload_id: no such upload, or it timed out");
  }
  std::unique_ptr<Upload> upload = std::move(it->second.upload);
  uploads_.erase(it);
  upload->CountIn(open_uploads_);
  return upload;
}

absl::StatusOr<PutResult> Broker::Commit(std::unique_ptr<Upload> upload) {
  if (!upload->complete()) {
    return absl::InvalidArgumentError("commit: rows are missing");
  }
  const int64_t begin = now_ms();
  Upload::Parts parts = std::move(*upload).TakeParts();
  SEMSHARE_ASSIGN_OR_RETURN(std::vector<ChunkRef> published,
                            chunks_->Publish(std::move(parts.drafts)));
  size_t next = 0;
  for (ChunkRef& ref : parts.held) {
    if (ref.id().empty()) ref = std::move(published[next++]);
  }
  SEMSHARE_ASSIGN_OR_RETURN(const PutResult result,
                            Store(std::move(parts.manifest), std::move(parts.held)));
  ++metrics_.puts_committed;
  metrics_.commit_seconds.Observe(static_cast<double>(now_ms() - begin) * 1e-3);
  return result;
}

// Chunks first, then the manifest, then the index: a reference is found only when it is whole.
absl::StatusOr<PutResult> Broker::Store(Manifest manifest, std::vector<ChunkRef> refs) {
  const ReferencePtr before = catalog_->Find(manifest.ns, manifest.id);
  if (before != nullptr) {
    // The same prompt again: it keeps what the new put does not say.
    manifest.durable = manifest.durable || before->manifest.durable;
    manifest.pinned = before->manifest.pinned;
    manifest.created_unix_ms = before->manifest.created_unix_ms;
    if (manifest.priority == 0) manifest.priority = before->manifest.priority;
    if (manifest.importance.empty()) manifest.importance = before->manifest.importance;
  }
  if (manifest.durable) SEMSHARE_RETURN_IF_ERROR(chunks_->Persist(manifest.chunks));
  const PutResult result{manifest.id, true, manifest.durable};
  SEMSHARE_ASSIGN_OR_RETURN(const ReferencePtr reference,
                            catalog_->Put(std::move(manifest), std::move(refs)));
  reference->used_unix_ms.store(now_ms());
  const NamespaceId& ns = reference->manifest.ns;
  if (models_.FindByNamespace(ns) == nullptr) {
    // The tenant was deleted while this put was under way: nothing of it may stay.
    SEMSHARE_RETURN_IF_ERROR(Remove(reference).status());
    return absl::NotFoundError("model: was deleted during the put");
  }
  // Always, not for new ones only: an earlier attempt may have ended before this line.
  SEMSHARE_RETURN_IF_ERROR(SyncIndex(reference->manifest));
  return result;
}

}  // namespace semshare
