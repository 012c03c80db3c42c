// Upload: one put in progress, from BeginPut to its commit. Holds the chunks it relies on, memory
// for the missing ones, and the place where the next rows belong. Dropping it undoes everything.
//
// Not thread-safe: one stream owns it.
#ifndef SEMSHARE_SERVER_UPLOAD_H_
#define SEMSHARE_SERVER_UPLOAD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "server/match/types.h"
#include "server/model.h"
#include "server/transport/kv_view.h"
#include "storage/catalog.h"
#include "storage/chunk_store.h"

namespace semshare {

// The small fields of a WriteKv frame.
struct WriteFrame {
  bool exact = false;
  int64_t layer = 0;
  int64_t plane = 0;
  int64_t token_begin = 0;
  int64_t tokens = 0;
  bool commit = false;
};

class Upload {
 public:
  // `held` has a ref, or an empty one, for each chunk of the manifest; `drafts` the memory of the
  // empty ones, in order.
  Upload(ModelPtr model, Manifest manifest, std::vector<ChunkRef> held,
         std::vector<ChunkDraft> drafts, MemorySpan arena);
  ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  // Token ranges that must be written, ascending.
  const std::vector<TokenRange>& missing() const { return missing_; }
  const Model& model() const { return *model_; }

  // Copies a frame's rows into the drafts. `pieces` is the payload, in order; it may be freed when
  // this returns. INVALID_ARGUMENT names the field that is out of order or of a wrong size;
  // FAILED_PRECONDITION if the first frame does not declare the rows exact.
  absl::Status Write(const WriteFrame& frame, absl::Span<const std::string_view> pieces,
                     Backend* backend, Lane& lane);

  // For rows that lie in memory of the worker: `source` describes all layers, and is checked
  // against the missing ranges. INVALID_ARGUMENT names the field, FAILED_PRECONDITION if `exact` is
  // false. REQUIRES: called once, before WriteLayers, instead of Write. The memory must stay
  // mapped.
  absl::Status SetSource(KvView source, bool exact);

  // Copies the missing rows of the next `layers` layers from the source; done when this returns.
  // Returns their bytes. INVALID_ARGUMENT if there are not so many layers, or no source.
  absl::StatusOr<int64_t> WriteLayers(int64_t layers, Backend* backend, Lane& lane);

  bool complete() const { return layer_ == model_->layout().layers(); }

  // Counts this upload in `counter` until it is destroyed. REQUIRES: called once.
  void CountIn(std::shared_ptr<std::atomic<int64_t>> counter);

  // What a commit publishes. REQUIRES: complete(). Leaves the upload empty.
  struct Parts {
    ModelPtr model;
    Manifest manifest;
    std::vector<ChunkRef> held;
    std::vector<ChunkDraft> drafts;
  };
  Parts TakeParts() &&;

 private:
  absl::Status CheckFrame(const WriteFrame& frame, int64_t payload_bytes) const;
  absl::Status EnqueueRows(const WriteFrame& frame, absl::Span<const std::string_view> pieces,
                           Backend* backend, Lane& lane) const;
  // Copies rows of the current (layer, plane), a chunk's at most, from the source.
  absl::Status EnqueueFromSource(const PlaneView& view, int64_t token, int64_t tokens,
                                 Backend* backend, Lane& lane) const;
  // Where row `token` of the current (layer, plane) lies in the arena.
  MemorySpan RowSpan(int64_t token, int64_t tokens) const;
  void Advance(int64_t tokens);

  ModelPtr model_;
  Manifest manifest_;
  std::vector<ChunkRef> held_;
  std::vector<ChunkDraft> drafts_;
  std::vector<int> draft_of_chunk_;  // -1: held
  std::vector<TokenRange> missing_;
  MemorySpan arena_;
  bool declared_exact_ = false;
  KvView source_;  // no planes: rows come in frames
  std::shared_ptr<std::atomic<int64_t>> counter_;

  // The next row.
  int layer_ = 0;
  int plane_ = 0;
  size_t source_plane_ = 0;  // the same, counted over all layers
  size_t range_ = 0;
  int64_t token_ = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_UPLOAD_H_
