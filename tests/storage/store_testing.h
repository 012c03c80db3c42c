// Prompts, chunk bytes and transfers for tests of the ChunkStore and what is built on it.
//
// Every chunk has bytes that follow from its id, so that any thread or process can check them.
// Thread-safe: pure functions and calls to thread-safe objects.
#ifndef SEMSHARE_TESTS_STORAGE_STORE_TESTING_H_
#define SEMSHARE_TESTS_STORAGE_STORE_TESTING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "storage/chunk_store.h"

namespace semshare::testing {

// `count` token ids; those of equal seeds share a prefix.
std::vector<uint32_t> TestTokens(uint64_t seed, size_t count);

NamespaceId TestNamespace();

// One chunk of 64 tokens, without a parent, that differs for each number.
ChunkMeta TestMeta(uint64_t number, int64_t bytes, int priority = 0);

// What the tests write to a chunk. `version` tells apart different bytes of one chunk.
std::string PatternOf(const ChunkId& id, int64_t bytes, uint64_t version = 0);

// Copies bytes into and out of device memory on a lane.
absl::Status WriteDevice(Backend* backend, MemorySpan destination, const std::string& bytes);
absl::StatusOr<std::string> ReadDevice(Backend* backend, MemorySpan source);

// Reserves a chunk and fills it with its pattern.
absl::StatusOr<ChunkDraft> MakeDraft(ChunkStore* store, Backend* backend, const ChunkMeta& meta,
                                     uint64_t version = 0);

// Refs to all chunks of metas: those that are known, and new ones with their patterns.
absl::StatusOr<std::vector<ChunkRef>> PutChunks(ChunkStore* store, Backend* backend,
                                                const std::vector<ChunkMeta>& metas);

std::vector<ChunkId> IdsOf(const std::vector<ChunkMeta>& metas);

// Pins chunks and compares their bytes with their patterns. DATA_LOSS too if they differ.
absl::Status CheckPinned(ChunkStore* store, Backend* backend, const std::vector<ChunkMeta>& metas,
                         uint64_t version = 0);

}  // namespace semshare::testing

#endif  // SEMSHARE_TESTS_STORAGE_STORE_TESTING_H_
