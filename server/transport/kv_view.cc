#include "server/transport/kv_view.h"

#include <algorithm>
#include <limits>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

using Wide = __int128;  // products of two int64 fit

// The tokens that lie in one block, [first, last].
struct BlockUse {
  int64_t block = 0;
  int64_t first = 0;
  int64_t last = 0;
};

// What the tokens use of blocks of one size. Not paged (blocks of 1): offsets are linear in the
// slot, so the outermost two stand for all.
std::vector<BlockUse> UsedBlocks(const KvView& view, absl::Span<const int64_t> tokens,
                                 int64_t block_tokens) {
  std::vector<BlockUse> uses;
  absl::flat_hash_map<int64_t, size_t> index;
  int64_t low = std::numeric_limits<int64_t>::max();
  int64_t high = -1;
  for (const int64_t token : tokens) {
    const int64_t slot = view.SlotOf(token);
    if (slot < 0) continue;
    low = std::min(low, slot);
    high = std::max(high, slot);
    if (block_tokens == 1) continue;
    const int64_t block = slot / block_tokens;
    const int64_t within = slot % block_tokens;
    const auto [it, fresh] = index.try_emplace(block, uses.size());
    if (fresh) {
      uses.push_back({block, within, within});
    } else {
      BlockUse& use = uses[it->second];
      use.first = std::min(use.first, within);
      use.last = std::max(use.last, within);
    }
  }
  if (block_tokens == 1 && high >= 0) uses = {{low, 0, 0}, {high, 0, 0}};
  return uses;
}

// A sum of terms, and the range of values that it takes.
struct Extent {
  Wide low = 0;
  Wide high = 0;
  void Add(Wide one, Wide other) {
    low += std::min(one, other);
    high += std::max(one, other);
  }
};

absl::Status CheckStrides(const std::string& name, const PlaneView& view, int64_t element_bytes) {
  if (view.block_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat(name, ".block_tokens: must be positive"));
  }
  for (const int64_t bytes : {view.block_stride, view.token_stride, view.head_stride,
                              view.element_stride, static_cast<int64_t>(view.memory.address)}) {
    if (bytes % element_bytes != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, ": offset and strides must be multiples of the element size, ", element_bytes));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBounds(const std::string& name, const PlaneView& view, const PlaneLayout& plane,
                         int64_t element_bytes, absl::Span<const BlockUse> uses) {
  Extent row;
  row.Add(0, Wide{plane.heads - 1} * view.head_stride);
  row.Add(0, Wide{plane.width - 1} * view.element_stride);
  row.high += element_bytes;
  for (const BlockUse& use : uses) {
    Extent extent = row;
    const Wide block = Wide{use.block} * view.block_stride;
    extent.Add(block, block);
    extent.Add(Wide{use.first} * view.token_stride, Wide{use.last} * view.token_stride);
    if (extent.low < 0 || extent.high > view.memory.bytes) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": a row of block ", use.block,
                                                     " lies outside of its ", view.memory.bytes,
                                                     " bytes"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSlots(const char* field, const KvView& view, int64_t prompt_tokens,
                        absl::Span<const int64_t> tokens, bool may_skip) {
  if (!view.slots.empty() && static_cast<int64_t>(view.slots.size()) != prompt_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(field, ".slots: expected ", prompt_tokens,
                                                   " or none, got ", view.slots.size()));
  }
  if (may_skip || view.slots.empty()) return absl::OkStatus();
  for (const int64_t token : tokens) {
    if (view.slots[token] < 0) {
      return absl::InvalidArgumentError(absl::StrCat(field, ".slots[", token, "]: is negative"));
    }
  }
  return absl::OkStatus();
}

// Lists the planes of `layers` layers.
absl::Status Expand(const char* field, int layers, KvView* view) {
  const int64_t stride = view->layer_stride;
  if (stride == 0) return absl::OkStatus();
  const size_t planes = view->planes.size();
  view->planes.reserve(planes * static_cast<size_t>(layers));
  for (int layer = 1; layer < layers; ++layer) {
    for (size_t plane = 0; plane < planes; ++plane) {
      PlaneView next = view->planes[plane];
      const Wide offset =
          Wide{next.memory.address} - Wide{view->region.address} + Wide{stride} * layer;
      if (offset < 0 || offset + next.memory.bytes > view->region.bytes) {
        return absl::InvalidArgumentError(
            absl::StrCat(field, ".layer_stride: plane ", plane, " of layer ", layer,
                         " is not within the region's ", view->region.bytes, " bytes"));
      }
      next.memory = view->region.Sub(static_cast<int64_t>(offset), next.memory.bytes);
      view->planes.push_back(next);
    }
  }
  view->layer_stride = 0;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KvView> ResolveKvView(const char* field, KvView view, const KvLayout& layout,
                                     int layer_begin, int layer_end, int64_t prompt_tokens,
                                     absl::Span<const int64_t> tokens, bool may_skip) {
  const size_t first_planes = layout.planes(layer_begin).size();
  if (view.layer_stride != 0 && view.planes.size() != first_planes) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".planes: with layer_stride, expected those of one layer, ",
                     first_planes, ", got ", view.planes.size()));
  }
  SEMSHARE_RETURN_IF_ERROR(Expand(field, layer_end - layer_begin, &view));
  SEMSHARE_RETURN_IF_ERROR(CheckSlots(field, view, prompt_tokens, tokens, may_skip));
  size_t expected = 0;
  for (int l = layer_begin; l < layer_end; ++l) expected += layout.planes(l).size();
  if (view.planes.size() != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".planes: expected ", expected, ", got ", view.planes.size()));
  }
  const int64_t element_bytes = DtypeBytes(layout.dtype());
  absl::flat_hash_map<int64_t, std::vector<BlockUse>> uses;
  size_t at = 0;
  for (int l = layer_begin; l < layer_end; ++l) {
    for (const PlaneLayout& plane : layout.planes(l)) {
      const std::string name = absl::StrCat(field, ".planes[", at, "]");
      const PlaneView& given = view.planes[at++];
      SEMSHARE_RETURN_IF_ERROR(CheckStrides(name, given, element_bytes));
      auto [it, fresh] = uses.try_emplace(given.block_tokens);
      if (fresh) it->second = UsedBlocks(view, tokens, given.block_tokens);
      SEMSHARE_RETURN_IF_ERROR(CheckBounds(name, given, plane, element_bytes, it->second));
    }
  }
  return view;
}

}  // namespace semshare
