// What the child of the crash test writes, so that its parent can check it. Thread-safe: pure
// functions.
#ifndef SEMSHARE_TESTS_STORAGE_CRASH_WORKLOAD_H_
#define SEMSHARE_TESTS_STORAGE_CRASH_WORKLOAD_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/base/status_macros.h"
#include "storage/arena.h"
#include "storage/catalog.h"
#include "tests/storage/backends.h"
#include "tests/storage/store_testing.h"

namespace semshare::testing {

inline constexpr int64_t kCrashChunkBytes = 96 << 10;

// Reference `number`: 2 to 5 chunks, the last one short. Neighbours share a prefix.
inline Manifest CrashManifest(uint64_t number) {
  Manifest manifest;
  manifest.ns = TestNamespace();
  manifest.token_ids = TestTokens(number / 4, 64);
  const std::vector<uint32_t> own = TestTokens(1000000 + number, 10 + 64 * (number % 4));
  manifest.token_ids.insert(manifest.token_ids.end(), own.begin(), own.end());
  manifest.id = MakeReferenceId(manifest.ns, manifest.token_ids, {});
  manifest.chunks = MakeChunkChain(manifest.ns, manifest.token_ids, {});
  manifest.alias = std::to_string(number);
  manifest.durable = true;
  manifest.chunk_bytes = kCrashChunkBytes;
  return manifest;
}

inline std::vector<ChunkMeta> CrashMetas(const Manifest& manifest) {
  return MakeChunkMetas(manifest.ns, manifest.token_ids, {}, manifest.chunk_bytes, 0);
}

// A store and its catalog, loaded and swept, on the disk at `path`.
struct CrashBroker {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<DiskTier> disk;
  std::unique_ptr<ChunkStore> store;
  std::unique_ptr<Catalog> catalog;
  int64_t swept = 0;
};

inline absl::StatusOr<CrashBroker> OpenCrashBroker(const std::string& path) {
  CrashBroker broker;
  SEMSHARE_ASSIGN_OR_RETURN(broker.backend, BackendCases()[0].make());
  RocksDbTierOptions disk_options;
  disk_options.path = path;
  // Small, so that RocksDB flushes by itself as well, in the middle of things.
  disk_options.write_buffer_bytes = 1 << 20;
  SEMSHARE_ASSIGN_OR_RETURN(broker.disk, NewRocksDbTier(disk_options));
  ChunkStoreOptions options;
  options.device_memory_bytes = kSuperblockBytes;
  options.staging_bytes = kMaxChunkBytes;
  SEMSHARE_ASSIGN_OR_RETURN(broker.store,
                            ChunkStore::Create(options, broker.backend.get(), broker.disk.get()));
  broker.catalog = std::make_unique<Catalog>(broker.disk.get(), broker.store.get());
  SEMSHARE_RETURN_IF_ERROR(broker.catalog->Load().status());
  SEMSHARE_ASSIGN_OR_RETURN(broker.swept, broker.store->SweepOrphans());
  return broker;
}

}  // namespace semshare::testing

#endif  // SEMSHARE_TESTS_STORAGE_CRASH_WORKLOAD_H_
