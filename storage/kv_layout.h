// KvLayout: how a model's KV lies in a chunk.
//
// A chunk holds kChunkTokens tokens of every layer. For each layer, for each plane, one slab
// [token][head][width], slabs in (layer, plane) order, each aligned to 256 bytes. A short last
// chunk has the same layout; its unused rows are zero.
//
// Thread-safe: immutable after Create.
#ifndef SEMSHARE_STORAGE_KV_LAYOUT_H_
#define SEMSHARE_STORAGE_KV_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/dtype.h"
#include "kernels/rotary.h"
#include "storage/ids.h"

namespace semshare {

inline constexpr int64_t kSlabAlignment = 256;
inline constexpr int64_t kMaxChunkBytes = int64_t{32} << 20;
inline constexpr int kMaxPlanesPerLayer = 8;
inline constexpr int kMaxLayers = 1024;

struct PlaneLayout {
  std::string name;
  int32_t heads = 0;
  int32_t width = 0;
  int32_t rotary = -1;  // index into KvLayout::rotaries(); -1: rows are copied

  // Filled by KvLayout::Create.
  int64_t row_bytes = 0;    // heads * width * sizeof(element)
  int64_t slab_offset = 0;  // from the start of a chunk
};

class KvLayout {
 public:
  // `layers[l]` lists the planes of layer l. INVALID_ARGUMENT names a field that breaks a limit:
  // 1..kMaxLayers layers, 1..kMaxPlanesPerLayer planes, positive heads and widths, rotary ranges
  // inside the row, a chunk of at most kMaxChunkBytes.
  static absl::StatusOr<KvLayout> Create(Dtype dtype, std::vector<std::vector<PlaneLayout>> layers,
                                         std::vector<RotaryDescriptor> rotaries);

  Dtype dtype() const { return dtype_; }
  int layers() const { return static_cast<int>(layers_.size()); }
  const std::vector<PlaneLayout>& planes(int layer) const { return layers_[layer]; }
  const std::vector<RotaryDescriptor>& rotaries() const { return rotaries_; }
  // Bytes of one chunk in memory.
  int64_t chunk_bytes() const { return chunk_bytes_; }
  // Bytes of the rows of one token over all layers and planes, without padding.
  int64_t token_bytes() const { return token_bytes_; }

 private:
  KvLayout() = default;

  Dtype dtype_ = Dtype::kFloat32;
  std::vector<std::vector<PlaneLayout>> layers_;
  std::vector<RotaryDescriptor> rotaries_;
  int64_t chunk_bytes_ = 0;
  int64_t token_bytes_ = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_KV_LAYOUT_H_
