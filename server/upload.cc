#include "server/upload.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {

Upload::Upload(ModelPtr model, Manifest manifest, std::vector<ChunkRef> held,
               std::vector<ChunkDraft> drafts, MemorySpan arena)
    : model_(std::move(model)),
      manifest_(std::move(manifest)),
      held_(std::move(held)),
      drafts_(std::move(drafts)),
      draft_of_chunk_(held_.size(), -1),
      arena_(arena) {
  const int64_t total = static_cast<int64_t>(manifest_.token_ids.size());
  int draft = 0;
  for (size_t c = 0; c < held_.size(); ++c) {
    if (!held_[c].id().empty()) continue;
    draft_of_chunk_[c] = draft++;
    const int64_t begin = static_cast<int64_t>(c) * kChunkTokens;
    const int64_t end = std::min(begin + kChunkTokens, total);
    if (!missing_.empty() && missing_.back().end == begin) {
      missing_.back().end = end;
    } else {
      missing_.push_back({begin, end});
    }
  }
  SEMSHARE_CHECK(draft == static_cast<int>(drafts_.size()));
  SEMSHARE_CHECK(!missing_.empty());
  token_ = missing_.front().begin;
}

Upload::~Upload() {
  if (counter_ != nullptr) --*counter_;
}

void Upload::CountIn(std::shared_ptr<std::atomic<int64_t>> counter) {
  SEMSHARE_CHECK(counter_ == nullptr);
  counter_ = std::move(counter);
  ++*counter_;
}

absl::Status Upload::CheckFrame(const WriteFrame& frame, int64_t payload_bytes) const {
  if (!declared_exact_ && !frame.exact) {
    return absl::FailedPreconditionError(
        "exact: only exact KV is stored, and the first frame did not declare it");
  }
  if (frame.tokens == 0 && payload_bytes == 0) return absl::OkStatus();  // a bare commit
  if (complete()) return absl::InvalidArgumentError("payload: every row was sent already");
  if (frame.layer != layer_) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer: expected ", layer_, ", got ", frame.layer));
  }
  if (frame.plane != plane_) {
    return absl::InvalidArgumentError(
        absl::StrCat("plane: expected ", plane_, ", got ", frame.plane));
  }
  if (frame.token_begin != token_) {
    return absl::InvalidArgumentError(
        absl::StrCat("token_begin: expected ", token_, ", got ", frame.token_begin));
  }
  const int64_t room = missing_[range_].end - token_;
  if (frame.tokens < 1 || frame.tokens > room) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens: expected 1..", room, ", got ", frame.tokens));
  }
  const int64_t row_bytes = model_->layout().planes(layer_)[plane_].row_bytes;
  if (payload_bytes != frame.tokens * row_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("payload: expected ", frame.tokens * row_bytes,
                                                   " bytes, got ", payload_bytes));
  }
  return absl::OkStatus();
}

MemorySpan Upload::RowSpan(int64_t token, int64_t tokens) const {
  const PlaneLayout& plane = model_->layout().planes(layer_)[plane_];
  const ChunkDraft& draft = drafts_[draft_of_chunk_[token / kChunkTokens]];
  const int64_t offset =
      draft.offset() + plane.slab_offset + (token % kChunkTokens) * plane.row_bytes;
  return arena_.Sub(offset, tokens * plane.row_bytes);
}

void Upload::Advance(int64_t tokens) {
  token_ += tokens;
  if (token_ < missing_[range_].end) return;
  if (++range_ == missing_.size()) {
    range_ = 0;
    ++source_plane_;
    if (++plane_ == static_cast<int>(model_->layout().planes(layer_).size())) {
      plane_ = 0;
      ++layer_;
    }
  }
  token_ = missing_[range_].begin;
}

// The rows fall into chunks, the payload into pieces: copies where both agree.
absl::Status Upload::EnqueueRows(const WriteFrame& frame, absl::Span<const std::string_view> pieces,
                                 Backend* backend, Lane& lane) const {
  int64_t token = frame.token_begin;
  const int64_t end = token + frame.tokens;
  size_t piece = 0;
  int64_t piece_at = 0;
  while (token < end) {
    const int64_t stop = std::min(end, (token / kChunkTokens + 1) * kChunkTokens);
    const MemorySpan rows = RowSpan(token, stop - token);
    for (int64_t at = 0; at < rows.bytes;) {
      const std::string_view source = pieces[piece];
      const int64_t left = static_cast<int64_t>(source.size()) - piece_at;
      if (left == 0) {
        ++piece;
        piece_at = 0;
        continue;
      }
      const int64_t bytes = std::min(left, rows.bytes - at);
      SEMSHARE_RETURN_IF_ERROR(backend->EnqueueCopy(lane, rows.Sub(at, bytes),
                                                    HostSpan(source.data() + piece_at, bytes)));
      at += bytes;
      piece_at += bytes;
    }
    token = stop;
  }
  return absl::OkStatus();
}

absl::Status Upload::Write(const WriteFrame& frame, absl::Span<const std::string_view> pieces,
                           Backend* backend, Lane& lane) {
  int64_t payload_bytes = 0;
  for (const std::string_view piece : pieces) payload_bytes += static_cast<int64_t>(piece.size());
  SEMSHARE_RETURN_IF_ERROR(CheckFrame(frame, payload_bytes));
  declared_exact_ = true;
  if (payload_bytes == 0) return absl::OkStatus();
  const absl::Status queued = EnqueueRows(frame, pieces, backend, lane);
  // The caller frees the payload next, so the copies must be done, also after an error.
  SEMSHARE_ASSIGN_OR_RETURN(const Event done, backend->Record(lane));
  SEMSHARE_RETURN_IF_ERROR(done.Wait());
  SEMSHARE_RETURN_IF_ERROR(queued);
  Advance(frame.tokens);
  return absl::OkStatus();
}

absl::Status Upload::SetSource(KvView source, bool exact) {
  if (!exact) {
    return absl::FailedPreconditionError(
        "exact: only exact KV is stored, and the first frame did not declare it");
  }
  std::vector<int64_t> tokens;
  for (const TokenRange& range : missing_) {
    for (int64_t t = range.begin; t < range.end; ++t) tokens.push_back(t);
  }
  SEMSHARE_ASSIGN_OR_RETURN(
      source_,
      ResolveKvView("source", std::move(source), model_->layout(), 0, model_->layout().layers(),
                    static_cast<int64_t>(manifest_.token_ids.size()), tokens,
                    /*may_skip=*/false));
  declared_exact_ = true;
  return absl::OkStatus();
}

absl::Status Upload::EnqueueFromSource(const PlaneView& view, int64_t token, int64_t tokens,
                                       Backend* backend, Lane& lane) const {
  const PlaneLayout& plane = model_->layout().planes(layer_)[plane_];
  const MemorySpan rows = RowSpan(token, tokens);
  const int64_t head_bytes = plane.row_bytes / plane.heads;
  const int64_t element_bytes = head_bytes / plane.width;
  if (view.element_stride != element_bytes) {
    return absl::UnimplementedError(absl::StrCat("source: element_stride ", view.element_stride,
                                                 " has no kernel; supported: ", element_bytes,
                                                 ", a head's elements side by side"));
  }
  const bool whole_rows = plane.heads == 1 || view.head_stride == head_bytes;
  const int64_t piece = whole_rows ? plane.row_bytes : head_bytes;
  const int64_t pieces = whole_rows ? 1 : plane.heads;
  // Adjacent pieces go in one copy: a contiguous source needs one for all tokens.
  int64_t from = 0;
  int64_t to = 0;
  int64_t bytes = 0;
  const auto flush = [&]() -> absl::Status {
    if (bytes == 0) return absl::OkStatus();
    return backend->EnqueueCopy(lane, rows.Sub(to, bytes), view.memory.Sub(from, bytes));
  };
  for (int64_t i = 0; i < tokens; ++i) {
    const int64_t slot = source_.SlotOf(token + i);
    for (int64_t h = 0; h < pieces; ++h) {
      const int64_t at = view.Offset(slot, h, 0);
      if (bytes > 0 && at == from + bytes) {
        bytes += piece;
        continue;
      }
      SEMSHARE_RETURN_IF_ERROR(flush());
      to += bytes;
      from = at;
      bytes = piece;
    }
  }
  return flush();
}

absl::StatusOr<int64_t> Upload::WriteLayers(int64_t layers, Backend* backend, Lane& lane) {
  if (source_.planes.empty()) return absl::InvalidArgumentError("layers: no source was named");
  if (layers < 0 || layers > model_->layout().layers() - layer_) {
    return absl::InvalidArgumentError(
        absl::StrCat("layers: expected 0..", model_->layout().layers() - layer_, ", got ", layers));
  }
  const int end = layer_ + static_cast<int>(layers);
  int64_t bytes = 0;
  absl::Status queued;
  while (layer_ < end && queued.ok()) {
    const int64_t tokens =
        std::min(missing_[range_].end, (token_ / kChunkTokens + 1) * kChunkTokens) - token_;
    bytes += tokens * model_->layout().planes(layer_)[plane_].row_bytes;
    queued = EnqueueFromSource(source_.planes[source_plane_], token_, tokens, backend, lane);
    if (queued.ok()) Advance(tokens);
  }
  SEMSHARE_ASSIGN_OR_RETURN(const Event done, backend->Record(lane));
  SEMSHARE_RETURN_IF_ERROR(done.Wait());
  SEMSHARE_RETURN_IF_ERROR(queued);
  return bytes;
}

Upload::Parts Upload::TakeParts() && {
  SEMSHARE_CHECK(complete());
  return {std::move(model_), std::move(manifest_), std::move(held_), std::move(drafts_)};
}

}  // namespace semshare
