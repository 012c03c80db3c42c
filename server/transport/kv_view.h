// KvView: memory of a worker that the broker writes rows to, or takes rows from, by itself: a
// strided view for each (layer, plane), and which slot each token has. Contiguous tensors, paged
// caches and every head order are the same thing here (design: strides in a descriptor).
//
// Thread-safe: values and pure functions. Nobody owns the memory: whoever made the view keeps it.
#ifndef SEMSHARE_SERVER_TRANSPORT_KV_VIEW_H_
#define SEMSHARE_SERVER_TRANSPORT_KV_VIEW_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "storage/kv_layout.h"

namespace semshare {

struct KvView {
  // In (layer, plane) order, for layers [layer_begin, layer_end) of whoever uses it. `memory` is
  // the range that the plane may touch.
  std::vector<PlaneView> planes;
  // Not 0: `planes` are those of the first layer, and each next layer's lie that many bytes
  // further, within `region`.
  int64_t layer_stride = 0;
  MemorySpan region;
  // Slot of each token of the prompt, negative: none. Empty: token t is in slot t.
  std::vector<int64_t> slots;

  int64_t SlotOf(int64_t token) const { return slots.empty() ? token : slots[token]; }
};

// The view with the planes of every layer listed (layer_stride 0), if it has one plane for each of
// the layout's planes in [layer_begin, layer_end), a slot for each of `prompt_tokens` tokens or
// none at all, strides that keep elements aligned, and if every byte of the rows of `tokens` lies
// inside of its plane's memory. Otherwise INVALID_ARGUMENT naming the field; the prefix `field`
// says whose. Tokens with a negative slot are left out if `may_skip`, and an error otherwise.
absl::StatusOr<KvView> ResolveKvView(const char* field, KvView view, const KvLayout& layout,
                                     int layer_begin, int layer_end, int64_t prompt_tokens,
                                     absl::Span<const int64_t> tokens, bool may_skip);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_TRANSPORT_KV_VIEW_H_
