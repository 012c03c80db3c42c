#include "storage/catalog.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/mutex.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

// Keys of kCatalog: a letter, namespace, reference id.
constexpr char kManifestPrefix = 'm';
// A manifest that could not be used, under this letter and its old key.
constexpr char kQuarantinePrefix = 'q';

using ReferenceKey = std::pair<NamespaceId, ReferenceId>;

std::string DiskKey(const ReferenceKey& key) {
  return kManifestPrefix + key.first.ToBytes() + key.second.ToBytes();
}

std::string AliasKey(const NamespaceId& ns, std::string_view alias) {
  return ns.ToBytes() + std::string(alias);
}

absl::Status NotFound(const ReferenceId& id) {
  return absl::NotFoundError(absl::StrCat("reference ", id.ToHex(), " is not known"));
}

// What a manifest must fulfil so that it can be read back. Edits of it come from callers.
absl::Status CheckManifest(const Manifest& manifest) {
  const size_t tokens = manifest.token_ids.size();
  if (manifest.priority < 0 || manifest.priority > 255) {
    return absl::InvalidArgumentError(
        absl::StrCat("priority must be in 0..255, is ", manifest.priority));
  }
  if (!manifest.importance.empty() && manifest.importance.size() != tokens) {
    return absl::InvalidArgumentError(absl::StrCat("importance must have one value per token, has ",
                                                   manifest.importance.size(), " for ", tokens));
  }
  const auto chunk_tokens = static_cast<size_t>(kChunkTokens);
  if (manifest.durable && manifest.chunks.size() != (tokens + chunk_tokens - 1) / chunk_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunks: ", manifest.chunks.size(), " do not fit ", tokens, " tokens"));
  }
  return absl::OkStatus();
}

// The range of ids whose hexadecimal digits start with `prefix`; false if there are none.
bool PrefixRange(std::string_view prefix, ReferenceId* first, ReferenceId* last) {
  if (prefix.size() > 32) return false;
  *first = ReferenceId{};
  *last = ReferenceId{~uint64_t{0}, ~uint64_t{0}};
  for (size_t i = 0; i < prefix.size(); ++i) {
    const char c = prefix[i];
    uint64_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<uint64_t>(c - 'a') + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<uint64_t>(c - 'A') + 10;
    } else {
      return false;
    }
    const size_t shift = 60 - 4 * (i % 16);
    uint64_t& low_word = i < 16 ? first->high : first->low;
    uint64_t& high_word = i < 16 ? last->high : last->low;
    low_word |= digit << shift;
    high_word &= ~((uint64_t{15} ^ digit) << shift);
  }
  return true;
}

}  // namespace

struct Catalog::State {
  State(DiskTier* disk_tier, ChunkStore* chunk_store) : disk(disk_tier), chunks(chunk_store) {}

  ReferencePtr FindLocked(const ReferenceKey& key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto it = references.find(key);
    return it == references.end() ? nullptr : it->second;
  }
  absl::Status ClaimAlias(const ReferenceKey& key, const std::string& alias);
  void ReleaseAlias(const std::string& alias_key);
  absl::Status Store(const Manifest& manifest, const Manifest* old) const;
  absl::StatusOr<ReferencePtr> Replace(std::shared_ptr<Reference> reference,
                                       const ReferencePtr& old);
  void InsertLocked(const ReferenceKey& key, ReferencePtr reference)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  absl::StatusOr<ReferencePtr> LoadOne(std::string_view key, std::string_view value);
  absl::Status Quarantine(const std::string& key);

  DiskTier* const disk;
  ChunkStore* const chunks;

  mutable Mutex mutex;
  // Signalled when a key is not busy any more.
  CondVar idle;
  std::map<ReferenceKey, ReferencePtr> references ABSL_GUARDED_BY(mutex);
  absl::flat_hash_map<std::string, ReferenceId> aliases ABSL_GUARDED_BY(mutex);
  absl::flat_hash_map<NamespaceId, int64_t> sizes ABSL_GUARDED_BY(mutex);
  int64_t bad_manifests ABSL_GUARDED_BY(mutex) = 0;
  // What a change on disk is under way for. Order: a change claims its reference, then its alias,
  // and nothing after that, so that changes never wait for each other in a circle.
  std::set<ReferenceKey> busy_references ABSL_GUARDED_BY(mutex);
  std::set<std::string> busy_aliases ABSL_GUARDED_BY(mutex);

  // Keeps other changes away from one reference while its own change is on its way to the disk.
  class Claim {
   public:
    Claim(State* state, const ReferenceKey& key) : state_(state), key_(key) {
      const MutexLock lock(&state_->mutex);
      while (!state_->busy_references.insert(key_).second) state_->idle.Wait(&state_->mutex);
    }
    ~Claim() {
      const MutexLock lock(&state_->mutex);
      state_->busy_references.erase(key_);
      state_->idle.NotifyAll();
    }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

    ReferencePtr Current() const {
      const MutexLock lock(&state_->mutex);
      return state_->FindLocked(key_);
    }

   private:
    State* const state_;
    const ReferenceKey key_;
  };
};

Catalog::Catalog(DiskTier* disk, ChunkStore* chunks)
    : state_(std::make_unique<State>(disk, chunks)) {}

Catalog::~Catalog() = default;

// ---- Loading --------------------------------------------------------------------------------

absl::StatusOr<ReferencePtr> Catalog::State::LoadOne(std::string_view key, std::string_view value) {
  SEMSHARE_ASSIGN_OR_RETURN(Manifest manifest, DecodeManifest(value));
  if (DiskKey({manifest.ns, manifest.id}) != key) {
    return absl::DataLossError("manifest: stored under another reference's key");
  }
  auto reference = std::make_shared<Reference>();
  const std::vector<ChunkMeta> metas = MakeChunkMetas(
      manifest.ns, manifest.token_ids, manifest.tags, manifest.chunk_bytes, manifest.priority);
  for (size_t i = 0; i < metas.size(); ++i) {
    if (metas[i].id != manifest.chunks[i]) {
      return absl::DataLossError("manifest: its chunks are not those of its tokens");
    }
    SEMSHARE_ASSIGN_OR_RETURN(ChunkRef ref, chunks->Adopt(metas[i]));
    reference->chunks.push_back(std::move(ref));
  }
  reference->used_unix_ms = manifest.created_unix_ms;
  reference->manifest = std::move(manifest);
  return ReferencePtr(std::move(reference));
}

absl::Status Catalog::State::Quarantine(const std::string& key) {
  {
    const MutexLock lock(&mutex);
    ++bad_manifests;
  }
  std::string value;
  SEMSHARE_RETURN_IF_ERROR(disk->Get(DiskTable::kCatalog, key, [&](std::string_view bytes) {
    value = std::string(bytes);
    return absl::OkStatus();
  }));
  const DiskEntry entry{kQuarantinePrefix + key, value};
  SEMSHARE_RETURN_IF_ERROR(disk->Put(DiskTable::kCatalog, absl::MakeConstSpan(&entry, 1)));
  return disk->Delete(DiskTable::kCatalog, absl::MakeConstSpan(&key, 1));
}

absl::StatusOr<std::vector<ReferencePtr>> Catalog::Load() {
  std::vector<ReferencePtr> loaded;
  std::vector<std::string> bad_keys;
  SEMSHARE_RETURN_IF_ERROR(state_->disk->Scan(DiskTable::kCatalog, std::string(1, kManifestPrefix),
                                              [&](std::string_view key, std::string_view value) {
                                                absl::StatusOr<ReferencePtr> reference =
                                                    state_->LoadOne(key, value);
                                                if (reference.ok()) {
                                                  loaded.push_back(*std::move(reference));
                                                } else {
                                                  bad_keys.emplace_back(key);
                                                }
                                                return true;
                                              }));
  for (const std::string& key : bad_keys) SEMSHARE_RETURN_IF_ERROR(state_->Quarantine(key));
  const MutexLock lock(&state_->mutex);
  for (const ReferencePtr& reference : loaded) {
    const Manifest& manifest = reference->manifest;
    state_->InsertLocked({manifest.ns, manifest.id}, reference);
  }
  return loaded;
}

int64_t Catalog::bad_manifests() const {
  const MutexLock lock(&state_->mutex);
  return state_->bad_manifests;
}

// ---- Changes --------------------------------------------------------------------------------

// Binds an alias before its manifest is written, so that no other reference can take it meanwhile.
// Waits for a change that is using the alias: it may fail and free it.
absl::Status Catalog::State::ClaimAlias(const ReferenceKey& key, const std::string& alias) {
  const std::string alias_key = AliasKey(key.first, alias);
  const MutexLock lock(&mutex);
  while (busy_aliases.contains(alias_key)) idle.Wait(&mutex);
  const auto it = aliases.find(alias_key);
  if (it != aliases.end() && it->second != key.second) {
    return absl::AlreadyExistsError(
        absl::StrCat("alias \"", alias, "\" names reference ", it->second.ToHex(), " already"));
  }
  busy_aliases.insert(alias_key);
  return absl::OkStatus();
}

void Catalog::State::ReleaseAlias(const std::string& alias_key) {
  const MutexLock lock(&mutex);
  busy_aliases.erase(alias_key);
  idle.NotifyAll();
}

// Brings the disk from `old` (null: nothing) to `manifest`.
absl::Status Catalog::State::Store(const Manifest& manifest, const Manifest* old) const {
  const std::string key = DiskKey({manifest.ns, manifest.id});
  if (manifest.durable) {
    const std::string value = EncodeManifest(manifest);
    const DiskEntry entry{key, value};
    return disk->Put(DiskTable::kCatalog, absl::MakeConstSpan(&entry, 1));
  }
  if (old == nullptr || !old->durable) return absl::OkStatus();
  return disk->Delete(DiskTable::kCatalog, absl::MakeConstSpan(&key, 1));
}

void Catalog::State::InsertLocked(const ReferenceKey& key, ReferencePtr reference) {
  ReferencePtr& slot = references[key];
  if (slot == nullptr) {
    ++sizes[key.first];
  } else if (!slot->manifest.alias.empty()) {
    const auto it = aliases.find(AliasKey(key.first, slot->manifest.alias));
    if (it != aliases.end() && it->second == key.second) aliases.erase(it);
  }
  const std::string& alias = reference->manifest.alias;
  if (!alias.empty()) aliases.emplace(AliasKey(key.first, alias), key.second);
  slot = std::move(reference);
}

// Makes `reference` the entry of its key, on disk first. REQUIRES: its key is claimed, and `old` is
// its current entry.
absl::StatusOr<ReferencePtr> Catalog::State::Replace(std::shared_ptr<Reference> reference,
                                                     const ReferencePtr& old) {
  const Manifest& manifest = reference->manifest;
  const ReferenceKey key{manifest.ns, manifest.id};
  const bool has_new_alias =
      !manifest.alias.empty() && (old == nullptr || old->manifest.alias != manifest.alias);
  if (has_new_alias) SEMSHARE_RETURN_IF_ERROR(ClaimAlias(key, manifest.alias));
  const absl::Status stored = Store(manifest, old == nullptr ? nullptr : &old->manifest);
  if (stored.ok()) {
    const MutexLock lock(&mutex);
    InsertLocked(key, reference);
  }
  if (has_new_alias) ReleaseAlias(AliasKey(key.first, manifest.alias));
  SEMSHARE_RETURN_IF_ERROR(stored);
  return ReferencePtr(std::move(reference));
}

absl::StatusOr<ReferencePtr> Catalog::Put(Manifest manifest, std::vector<ChunkRef> chunks) {
  const bool same_chunks =
      std::equal(chunks.begin(), chunks.end(), manifest.chunks.begin(), manifest.chunks.end(),
                 [](const ChunkRef& ref, const ChunkId& id) { return ref.id() == id; });
  if (!same_chunks) {
    return absl::InvalidArgumentError("chunks are not those that the manifest lists");
  }
  const State::Claim claim(state_.get(), {manifest.ns, manifest.id});
  const ReferencePtr old = claim.Current();
  auto reference = std::make_shared<Reference>();
  reference->used_unix_ms = manifest.created_unix_ms;
  if (old != nullptr) {
    if (manifest.alias.empty()) manifest.alias = old->manifest.alias;
    // What was promised to survive a restart keeps doing so.
    manifest.durable = manifest.durable || old->manifest.durable;
    reference->used_unix_ms = std::max(old->used_unix_ms.load(), reference->used_unix_ms.load());
  }
  SEMSHARE_RETURN_IF_ERROR(CheckManifest(manifest));
  reference->manifest = std::move(manifest);
  reference->chunks = std::move(chunks);
  return state_->Replace(std::move(reference), old);
}

absl::StatusOr<ReferencePtr> Catalog::Update(const NamespaceId& ns, const ReferenceId& id,
                                             const std::function<void(Manifest*)>& edit) {
  const State::Claim claim(state_.get(), {ns, id});
  const ReferencePtr old = claim.Current();
  if (old == nullptr) return NotFound(id);
  Manifest edited = old->manifest;
  edit(&edited);
  auto reference = std::make_shared<Reference>();
  reference->used_unix_ms = old->used_unix_ms.load();
  reference->manifest = old->manifest;
  reference->manifest.alias = std::move(edited.alias);
  reference->manifest.importance = std::move(edited.importance);
  reference->manifest.pinned = edited.pinned;
  reference->manifest.priority = edited.priority;
  reference->manifest.expires_unix_ms = edited.expires_unix_ms;
  reference->manifest.durable = edited.durable;
  SEMSHARE_RETURN_IF_ERROR(CheckManifest(reference->manifest));
  // The old entry keeps the chunks known, so adopting them only adds references.
  const Manifest& manifest = reference->manifest;
  if (!old->chunks.empty()) {
    for (const ChunkMeta& meta : MakeChunkMetas(ns, manifest.token_ids, manifest.tags,
                                                manifest.chunk_bytes, manifest.priority)) {
      SEMSHARE_ASSIGN_OR_RETURN(ChunkRef ref, state_->chunks->Adopt(meta));
      reference->chunks.push_back(std::move(ref));
    }
  }
  return state_->Replace(std::move(reference), old);
}

absl::StatusOr<ReferencePtr> Catalog::Delete(const NamespaceId& ns, const ReferenceId& id,
                                             const ReferencePtr& expected) {
  const ReferenceKey key{ns, id};
  const State::Claim claim(state_.get(), key);
  ReferencePtr old = claim.Current();
  if (old == nullptr || (expected != nullptr && old != expected)) return NotFound(id);
  // From disk first: an entry that is still there may be deleted again, one that comes back after
  // a restart may not.
  if (old->manifest.durable) {
    const std::string disk_key = DiskKey(key);
    SEMSHARE_RETURN_IF_ERROR(
        state_->disk->Delete(DiskTable::kCatalog, absl::MakeConstSpan(&disk_key, 1)));
  }
  const MutexLock lock(&state_->mutex);
  state_->references.erase(key);
  if (--state_->sizes[ns] == 0) state_->sizes.erase(ns);
  const auto it = state_->aliases.find(AliasKey(ns, old->manifest.alias));
  if (it != state_->aliases.end() && it->second == id) state_->aliases.erase(it);
  return old;
}

// ---- Looking up -----------------------------------------------------------------------------

ReferencePtr Catalog::Find(const NamespaceId& ns, const ReferenceId& id) const {
  const MutexLock lock(&state_->mutex);
  return state_->FindLocked({ns, id});
}

ReferencePtr Catalog::FindByAlias(const NamespaceId& ns, std::string_view alias) const {
  const MutexLock lock(&state_->mutex);
  const auto it = state_->aliases.find(AliasKey(ns, alias));
  return it == state_->aliases.end() ? nullptr : state_->FindLocked({ns, it->second});
}

std::vector<ReferencePtr> Catalog::FindByPrefix(const NamespaceId& ns, std::string_view prefix,
                                                int limit) const {
  std::vector<ReferencePtr> found;
  ReferenceId first;
  ReferenceId last;
  if (!PrefixRange(prefix, &first, &last)) return found;
  const MutexLock lock(&state_->mutex);
  for (auto it = state_->references.lower_bound({ns, first});
       it != state_->references.end() && it->first <= ReferenceKey{ns, last} &&
       static_cast<int>(found.size()) < limit;
       ++it) {
    found.push_back(it->second);
  }
  return found;
}

std::vector<ReferencePtr> Catalog::List(const NamespaceId& ns, const NamespaceId& after_ns,
                                        const ReferenceId& after_id, int limit) const {
  ReferenceKey after{after_ns, after_id};
  // Within one namespace the id alone says where to go on.
  if (!ns.empty() && after_ns.empty()) after.first = ns;
  if (!ns.empty() && after.first < ns) after = {ns, ReferenceId{}};
  std::vector<ReferencePtr> found;
  const MutexLock lock(&state_->mutex);
  for (auto it = state_->references.upper_bound(after);
       it != state_->references.end() && static_cast<int>(found.size()) < limit; ++it) {
    if (!ns.empty() && it->first.first != ns) break;
    found.push_back(it->second);
  }
  return found;
}

int64_t Catalog::size() const {
  const MutexLock lock(&state_->mutex);
  return static_cast<int64_t>(state_->references.size());
}

int64_t Catalog::size(const NamespaceId& ns) const {
  const MutexLock lock(&state_->mutex);
  const auto it = state_->sizes.find(ns);
  return it == state_->sizes.end() ? 0 : it->second;
}

}  // namespace semshare
