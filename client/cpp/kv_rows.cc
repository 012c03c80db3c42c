#include "client/cpp/kv_rows.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace semshare::client {
namespace {

constexpr uint32_t kMaxLayers = 1024;
constexpr uint32_t kMaxPlanes = 8;
constexpr uint32_t kMaxHeads = 1024;
constexpr uint32_t kMaxWidth = 65536;

int64_t ElementBytes(v1::Dtype dtype) {
  switch (dtype) {
    case v1::DTYPE_FLOAT32:
      return 4;
    case v1::DTYPE_FLOAT16:
    case v1::DTYPE_BFLOAT16:
      return 2;
    default:
      return 0;
  }
}

absl::StatusOr<std::vector<int64_t>> RowBytesOf(const v1::LayerGroup& group,
                                                int64_t element_bytes) {
  if (group.planes().empty() || group.planes_size() > static_cast<int>(kMaxPlanes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer_groups.planes: ", group.planes_size(), " planes, not 1..8"));
  }
  std::vector<int64_t> row_bytes;
  for (const v1::PlaneSpec& plane : group.planes()) {
    if (plane.heads() == 0 || plane.heads() > kMaxHeads || plane.width() == 0 ||
        plane.width() > kMaxWidth) {
      return absl::InvalidArgumentError(absl::StrCat("plane ", plane.name(), ": heads ",
                                                     plane.heads(), ", width ", plane.width()));
    }
    row_bytes.push_back(int64_t{plane.heads()} * plane.width() * element_bytes);
  }
  return row_bytes;
}

// The view of a range, or why it does not fit.
absl::StatusOr<PlaneView> ViewOf(const RowViews& views, const RowRange& range, int64_t bytes) {
  if (range.layer >= views.size() || range.plane >= views[range.layer].size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no view of layer ", range.layer, ", plane ", range.plane));
  }
  const PlaneView& view = views[range.layer][range.plane];
  if (int64_t{range.begin} + range.count > view.rows) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", range.layer, ", plane ", range.plane,
                                                   ": rows up to ", range.begin + range.count,
                                                   " of ", view.rows));
  }
  if (bytes != int64_t{range.count} * view.heads * view.head_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", range.layer, ", plane ", range.plane,
                                                   ": ", bytes, " bytes for ", range.count,
                                                   " rows of ", view.heads * view.head_bytes));
  }
  return view;
}

// The rows of `range` alone. Heads that lie side by side are one run, and so are then rows.
PlaneView Merged(PlaneView view, const RowRange& range) {
  view.base += int64_t{range.begin} * view.row_stride_bytes;
  view.rows = range.count;
  if (view.head_stride_bytes == view.head_bytes) {
    view.head_bytes *= view.heads;
    view.heads = 1;
  }
  if (view.heads == 1 && view.row_stride_bytes == view.head_bytes) {
    view.head_bytes *= view.rows;
    view.rows = 1;
  }
  return view;
}

}  // namespace

int64_t KvShape::BytesPerToken() const {
  int64_t total_bytes = 0;
  for (const std::vector<int64_t>& planes : row_bytes) {
    for (const int64_t bytes : planes) total_bytes += bytes;
  }
  return total_bytes;
}

absl::StatusOr<KvShape> ShapeOf(const v1::ModelSpec& spec) {
  const int64_t element_bytes = ElementBytes(spec.dtype());
  if (element_bytes == 0) return absl::InvalidArgumentError("dtype: not a known element type");
  if (spec.layers() == 0 || spec.layers() > kMaxLayers) {
    return absl::InvalidArgumentError(absl::StrCat("layers: ", spec.layers(), ", not 1..1024"));
  }
  KvShape shape;
  shape.row_bytes.resize(spec.layers());
  for (const v1::LayerGroup& group : spec.layer_groups()) {
    absl::StatusOr<std::vector<int64_t>> row_bytes = RowBytesOf(group, element_bytes);
    if (!row_bytes.ok()) return row_bytes.status();
    for (const uint32_t layer : group.layers()) {
      if (layer >= spec.layers() || !shape.row_bytes[layer].empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("layer_groups.layers: ", layer, " is named twice or too large"));
      }
      shape.row_bytes[layer] = *row_bytes;
    }
  }
  for (size_t layer = 0; layer < shape.row_bytes.size(); ++layer) {
    if (shape.row_bytes[layer].empty()) {
      return absl::InvalidArgumentError(absl::StrCat("layer_groups: layer ", layer, " is missing"));
    }
  }
  return shape;
}

KvShape UniformShape(uint32_t layers, const std::vector<int64_t>& plane_row_bytes) {
  KvShape shape;
  shape.row_bytes.assign(layers, plane_row_bytes);
  return shape;
}

PieceReader::PieceReader(absl::Span<const absl::Span<const char>> pieces) : pieces_(pieces) {
  for (const absl::Span<const char> piece : pieces) {
    left_bytes_ += static_cast<int64_t>(piece.size());
  }
}

absl::Span<const char> PieceReader::Next(int64_t bytes) {
  while (offset_ == pieces_[piece_].size()) {
    ++piece_;
    offset_ = 0;
  }
  const absl::Span<const char> next = pieces_[piece_].subspan(offset_, static_cast<size_t>(bytes));
  offset_ += next.size();
  left_bytes_ -= static_cast<int64_t>(next.size());
  return next;
}

void PieceReader::Copy(char* to, int64_t bytes) {
  while (bytes > 0) {
    const absl::Span<const char> next = Next(bytes);
    std::memcpy(to, next.data(), next.size());
    to += next.size();
    bytes -= static_cast<int64_t>(next.size());
  }
}

void PieceReader::Skip(int64_t bytes) {
  while (bytes > 0) bytes -= static_cast<int64_t>(Next(bytes).size());
}

std::vector<absl::Span<const char>> PieceReader::Take(int64_t bytes) {
  std::vector<absl::Span<const char>> taken;
  while (bytes > 0) {
    taken.push_back(Next(bytes));
    bytes -= static_cast<int64_t>(taken.back().size());
  }
  return taken;
}

RowSource FromViews(RowViews views, std::shared_ptr<const void> owner) {
  const auto kept = std::make_shared<const RowViews>(std::move(views));
  const auto fill = [kept](const RowRange& range, absl::Span<char> rows) -> absl::Status {
    absl::StatusOr<PlaneView> found = ViewOf(*kept, range, static_cast<int64_t>(rows.size()));
    if (!found.ok()) return found.status();
    const PlaneView view = Merged(*found, range);
    char* to = rows.data();
    for (int64_t row = 0; row < view.rows; ++row) {
      const char* from = view.base + row * view.row_stride_bytes;
      for (int64_t head = 0; head < view.heads; ++head) {
        std::memcpy(to, from + head * view.head_stride_bytes, view.head_bytes);
        to += view.head_bytes;
      }
    }
    return absl::OkStatus();
  };
  if (owner == nullptr) return fill;
  return {fill,
          [kept, owner = std::move(owner)](const RowRange& range,
                                           int64_t bytes) -> absl::StatusOr<LentRows> {
            absl::StatusOr<PlaneView> found = ViewOf(*kept, range, bytes);
            if (!found.ok()) return found.status();
            const PlaneView view = Merged(*found, range);
            if (view.rows * view.heads != 1) return LentRows();
            return LentRows{{view.base, static_cast<size_t>(bytes)}, owner};
          }};
}

RowSink IntoViews(RowViews views) {
  return
      [views = std::move(views)](const RowRange& range,
                                 absl::Span<const absl::Span<const char>> pieces) -> absl::Status {
        PieceReader reader(pieces);
        absl::StatusOr<PlaneView> found = ViewOf(views, range, reader.left());
        if (!found.ok()) return found.status();
        const PlaneView view = Merged(*found, range);
        for (int64_t row = 0; row < view.rows; ++row) {
          char* to = view.base + row * view.row_stride_bytes;
          for (int64_t head = 0; head < view.heads; ++head) {
            reader.Copy(to + head * view.head_stride_bytes, view.head_bytes);
          }
        }
        return absl::OkStatus();
      };
}

}  // namespace semshare::client
