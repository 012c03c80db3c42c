// Catalog: the references of all namespaces. A reference exists if and only if its manifest does:
// on disk for durable ones, in memory for the others.
//
// Thread-safe. No disk work is done under its lock. Lock order: Catalog's before ChunkStore's.
#ifndef SEMSHARE_STORAGE_CATALOG_H_
#define SEMSHARE_STORAGE_CATALOG_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/disk_tier.h"
#include "storage/ids.h"

namespace semshare {

// What is known of a stored prompt, without its KV.
struct Manifest {
  ReferenceId id;
  NamespaceId ns;
  std::vector<uint32_t> token_ids;
  std::vector<ContentTag> tags;
  std::vector<float> importance;     // one per token, or empty
  std::vector<ChunkId> chunks;       // MakeChunkChain(ns, token_ids, tags)
  std::vector<uint64_t> signatures;  // prompt code, then one per window
  uint32_t signature_version = 0;
  std::string alias;
  int priority = 0;
  bool pinned = false;
  bool durable = false;
  int64_t chunk_bytes = 0;  // KvLayout::chunk_bytes() of the model
  int64_t created_unix_ms = 0;
  int64_t expires_unix_ms = 0;  // 0: never
};

// Bytes of a manifest: magic, version, XXH3-64, fields (drawn in manifest.cc). Decode gives
// DATA_LOSS for anything that is not exactly what Encode makes.
std::string EncodeManifest(const Manifest& manifest);
absl::StatusOr<Manifest> DecodeManifest(std::string_view bytes);

// A catalog entry. Immutable but for the atomics; whoever holds the shared_ptr keeps the chunks
// known, even after the reference was deleted.
struct Reference {
  Manifest manifest;
  std::vector<ChunkRef> chunks;
  mutable std::atomic<int64_t> used_unix_ms{0};
};
using ReferencePtr = std::shared_ptr<const Reference>;

class Catalog {
 public:
  // `disk` and `chunks` must outlive the catalog. Empty until Load.
  Catalog(DiskTier* disk, ChunkStore* chunks);
  ~Catalog();

  // Reads every manifest from disk and adopts its chunks. A manifest that can't be decoded is
  // counted, kept on disk under a quarantine key and skipped. Returns what was loaded. Called once.
  absl::StatusOr<std::vector<ReferencePtr>> Load();
  int64_t bad_manifests() const;

  // Adds a reference; if manifest.durable, its manifest is on disk when this returns (the caller
  // has made the chunks durable before). An entry with the same id is replaced (its alias kept if
  // the new one is empty). ALREADY_EXISTS if the alias names another reference of the namespace.
  absl::StatusOr<ReferencePtr> Put(Manifest manifest, std::vector<ChunkRef> chunks);

  // Null if there is none.
  ReferencePtr Find(const NamespaceId& ns, const ReferenceId& id) const;
  ReferencePtr FindByAlias(const NamespaceId& ns, std::string_view alias) const;
  // References of a namespace whose id, as hexadecimal digits, starts with `prefix`, at most
  // `limit`.
  std::vector<ReferencePtr> FindByPrefix(const NamespaceId& ns, std::string_view prefix,
                                         int limit) const;

  // Removes a reference; from disk too before this returns. NOT_FOUND if there is none, or if
  // `expected` is given and is not the entry any more: what was decided on an old entry must not
  // hit one that was put or edited since.
  absl::StatusOr<ReferencePtr> Delete(const NamespaceId& ns, const ReferenceId& id,
                                      const ReferencePtr& expected = nullptr);

  // Replaces a few fields, durably if the reference is durable: what `edit` changes of a copy
  // (alias, importance, pinned, priority, expires_unix_ms, durable). Same errors as Put, NOT_FOUND
  // if there is none.
  absl::StatusOr<ReferencePtr> Update(const NamespaceId& ns, const ReferenceId& id,
                                      const std::function<void(Manifest*)>& edit);

  // References of a namespace (or of all, if ns is empty) after `after` in order of (namespace,
  // id), at most `limit`.
  std::vector<ReferencePtr> List(const NamespaceId& ns, const NamespaceId& after_ns,
                                 const ReferenceId& after_id, int limit) const;

  int64_t size() const;
  int64_t size(const NamespaceId& ns) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_CATALOG_H_
