#include "tests/storage/store_testing.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare::testing {
namespace {

constexpr absl::Duration kLaneTimeout = absl::Seconds(60);

uint64_t Mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

absl::Status CopyAndWait(Backend* backend, MemorySpan destination, MemorySpan source) {
  SEMSHARE_ASSIGN_OR_RETURN(Lane lane, backend->AcquireLane(kLaneTimeout));
  SEMSHARE_RETURN_IF_ERROR(backend->EnqueueCopy(lane, destination, source));
  SEMSHARE_ASSIGN_OR_RETURN(const Event event, backend->Record(lane));
  return event.Wait();
}

}  // namespace

std::vector<uint32_t> TestTokens(uint64_t seed, size_t count) {
  std::vector<uint32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<uint32_t>(Mix(seed * 1000003 + i));
  return tokens;
}

NamespaceId TestNamespace() { return MakeNamespaceId("tenant", "fingerprint"); }

ChunkMeta TestMeta(uint64_t number, int64_t bytes, int priority) {
  return MakeChunkMetas(TestNamespace(), TestTokens(number, kChunkTokens), {}, bytes, priority)[0];
}

std::string PatternOf(const ChunkId& id, int64_t bytes, uint64_t version) {
  // Pieces that differ in their first word only: large chunks are cheap to make, and pieces that
  // were lost or swapped show.
  constexpr size_t kPiece = 4096;
  const uint64_t seed = id.high ^ id.low ^ Mix(version);
  std::string piece(kPiece, '\0');
  for (size_t i = 0; i < kPiece; i += 8) {
    const uint64_t word = Mix(seed + i);
    std::memcpy(piece.data() + i, &word, 8);
  }
  std::string pattern;
  pattern.reserve(static_cast<size_t>(bytes) + kPiece);
  while (pattern.size() < static_cast<size_t>(bytes)) {
    const uint64_t word = Mix(seed ^ pattern.size());
    std::memcpy(piece.data(), &word, 8);
    pattern += piece;
  }
  pattern.resize(static_cast<size_t>(bytes));
  return pattern;
}

absl::Status WriteDevice(Backend* backend, MemorySpan destination, const std::string& bytes) {
  return CopyAndWait(backend, destination,
                     HostSpan(bytes.data(), static_cast<int64_t>(bytes.size())));
}

absl::StatusOr<std::string> ReadDevice(Backend* backend, MemorySpan source) {
  std::string bytes(static_cast<size_t>(source.bytes), '\0');
  SEMSHARE_RETURN_IF_ERROR(CopyAndWait(backend, HostSpan(bytes.data(), source.bytes), source));
  return bytes;
}

absl::StatusOr<ChunkDraft> MakeDraft(ChunkStore* store, Backend* backend, const ChunkMeta& meta,
                                     uint64_t version) {
  SEMSHARE_ASSIGN_OR_RETURN(ChunkDraft draft, store->Reserve(meta));
  SEMSHARE_RETURN_IF_ERROR(WriteDevice(backend, store->arena().Sub(draft.offset(), meta.bytes),
                                       PatternOf(meta.id, meta.bytes, version)));
  return draft;
}

absl::StatusOr<std::vector<ChunkRef>> PutChunks(ChunkStore* store, Backend* backend,
                                                const std::vector<ChunkMeta>& metas) {
  std::vector<ChunkRef> refs = store->FindAll(metas);
  std::vector<ChunkDraft> drafts;
  std::vector<size_t> missing;
  for (size_t i = 0; i < metas.size(); ++i) {
    if (!refs[i].id().empty()) continue;
    SEMSHARE_ASSIGN_OR_RETURN(ChunkDraft draft, MakeDraft(store, backend, metas[i]));
    drafts.push_back(std::move(draft));
    missing.push_back(i);
  }
  SEMSHARE_ASSIGN_OR_RETURN(std::vector<ChunkRef> published, store->Publish(std::move(drafts)));
  for (size_t i = 0; i < missing.size(); ++i) refs[missing[i]] = std::move(published[i]);
  return refs;
}

std::vector<ChunkId> IdsOf(const std::vector<ChunkMeta>& metas) {
  std::vector<ChunkId> ids;
  for (const ChunkMeta& meta : metas) ids.push_back(meta.id);
  return ids;
}

absl::Status CheckPinned(ChunkStore* store, Backend* backend, const std::vector<ChunkMeta>& metas,
                         uint64_t version) {
  SEMSHARE_ASSIGN_OR_RETURN(const std::vector<ChunkPin> pins, store->PinAll(IdsOf(metas)));
  for (size_t i = 0; i < metas.size(); ++i) {
    SEMSHARE_ASSIGN_OR_RETURN(
        const std::string bytes,
        ReadDevice(backend, store->arena().Sub(pins[i].offset(), metas[i].bytes)));
    if (bytes != PatternOf(metas[i].id, metas[i].bytes, version)) {
      return absl::DataLossError(absl::StrCat("chunk ", metas[i].id.ToHex(), " has wrong bytes"));
    }
  }
  return absl::OkStatus();
}

}  // namespace semshare::testing
