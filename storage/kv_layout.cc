#include "storage/kv_layout.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

int64_t AlignUp(int64_t value, int64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

absl::Status CheckRotary(const RotaryDescriptor& rotary, size_t index) {
  const std::string name = absl::StrCat("rotaries[", index, "]");
  if (rotary.begin < 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, ".begin is negative"));
  }
  if (rotary.width <= 0 || rotary.width % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ".width must be positive and even, is ", rotary.width));
  }
  if (rotary.inv_freq.size() != static_cast<size_t>(rotary.width / 2)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ".inv_freq must have width / 2 = ", rotary.width / 2, " elements, has ",
                     rotary.inv_freq.size()));
  }
  if (rotary.pairing != RotaryPairing::kHalfSplit &&
      rotary.pairing != RotaryPairing::kInterleaved) {
    return absl::InvalidArgumentError(absl::StrCat(name, ".pairing is unknown"));
  }
  if (rotary.angle_precision != AnglePrecision::kFloat32 &&
      rotary.angle_precision != AnglePrecision::kFloat64) {
    return absl::InvalidArgumentError(absl::StrCat(name, ".angle_precision is unknown"));
  }
  return absl::OkStatus();
}

// All arithmetic on input is done on values that were bounded before, so that nothing overflows.
absl::Status CheckPlane(const PlaneLayout& plane, Dtype dtype,
                        const std::vector<RotaryDescriptor>& rotaries, const std::string& name) {
  if (plane.heads <= 0 || plane.heads > kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ".heads must be in 1..", kMaxChunkBytes, ", is ", plane.heads));
  }
  if (plane.width <= 0 || plane.width > kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ".width must be in 1..", kMaxChunkBytes, ", is ", plane.width));
  }
  const int64_t elements = int64_t{plane.heads} * plane.width;
  if (elements > kMaxChunkBytes / (kChunkTokens * DtypeBytes(dtype))) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": heads * width = ", elements,
                                                   " makes a chunk larger than ", kMaxChunkBytes));
  }
  if (plane.rotary == -1) return absl::OkStatus();
  if (plane.rotary < 0 || static_cast<size_t>(plane.rotary) >= rotaries.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ".rotary = ", plane.rotary, " names none of ", rotaries.size(), " rotaries"));
  }
  const RotaryDescriptor& rotary = rotaries[static_cast<size_t>(plane.rotary)];
  if (int64_t{rotary.begin} + rotary.width > plane.width) {
    return absl::InvalidArgumentError(absl::StrCat(name, ".rotary: the range [", rotary.begin, ", ",
                                                   int64_t{rotary.begin} + rotary.width,
                                                   ") exceeds the width ", plane.width));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KvLayout> KvLayout::Create(Dtype dtype, std::vector<std::vector<PlaneLayout>> layers,
                                          std::vector<RotaryDescriptor> rotaries) {
  if (dtype != Dtype::kFloat32 && dtype != Dtype::kFloat16 && dtype != Dtype::kBfloat16) {
    return absl::InvalidArgumentError("dtype is unknown");
  }
  if (layers.empty() || layers.size() > static_cast<size_t>(kMaxLayers)) {
    return absl::InvalidArgumentError(
        absl::StrCat("layers: their number must be in 1..", kMaxLayers, ", is ", layers.size()));
  }
  for (size_t i = 0; i < rotaries.size(); ++i) {
    SEMSHARE_RETURN_IF_ERROR(CheckRotary(rotaries[i], i));
  }
  KvLayout layout;
  int64_t offset = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    if (layers[l].empty() || layers[l].size() > static_cast<size_t>(kMaxPlanesPerLayer)) {
      return absl::InvalidArgumentError(
          absl::StrCat("layers[", l, "].planes: their number must be in 1..", kMaxPlanesPerLayer,
                       ", is ", layers[l].size()));
    }
    for (size_t p = 0; p < layers[l].size(); ++p) {
      PlaneLayout& plane = layers[l][p];
      SEMSHARE_RETURN_IF_ERROR(
          CheckPlane(plane, dtype, rotaries, absl::StrCat("layers[", l, "].planes[", p, "]")));
      plane.row_bytes = int64_t{plane.heads} * plane.width * DtypeBytes(dtype);
      plane.slab_offset = offset;
      offset += AlignUp(plane.row_bytes * kChunkTokens, kSlabAlignment);
      layout.token_bytes_ += plane.row_bytes;
    }
    if (offset > kMaxChunkBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("layers[", l, "]: the chunk has more than ", kMaxChunkBytes, " bytes"));
    }
  }
  layout.dtype_ = dtype;
  layout.layers_ = std::move(layers);
  layout.rotaries_ = std::move(rotaries);
  layout.chunk_bytes_ = offset;
  return layout;
}

}  // namespace semshare
