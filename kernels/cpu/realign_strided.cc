#include "kernels/cpu/realign_strided.h"

#include <cstddef>
#include <cstring>

#include "kernels/cpu/float_convert.h"
#include "kernels/cpu/operations.h"

namespace semshare {
namespace {

// How an element is stored, and its value.
struct Float32Element {
  using Stored = float;
  static float Load(Stored stored) { return stored; }
  static Stored Store(float value) { return value; }
};

struct Float16Element {
  using Stored = uint16_t;
  static float Load(Stored stored) { return FloatFromFloat16(stored); }
  static Stored Store(float value) { return Float16FromFloat(value); }
};

struct Bfloat16Element {
  using Stored = uint16_t;
  static float Load(Stored stored) { return FloatFromBfloat16(stored); }
  static Stored Store(float value) { return Bfloat16FromFloat(value); }
};

template <typename Element>
float LoadElement(const std::byte* at) {
  typename Element::Stored stored;
  std::memcpy(&stored, at, sizeof(stored));
  return Element::Load(stored);
}

template <typename Element>
void StoreElement(float value, std::byte* at) {
  const typename Element::Stored stored = Element::Store(value);
  std::memcpy(at, &stored, sizeof(stored));
}

// One head of one row; angles == nullptr copies it.
template <typename Element>
void RealignHead(const RealignArgs& args, const std::byte* source, std::byte* destination,
                 const float* angles) {
  constexpr int64_t kBytes = sizeof(typename Element::Stored);
  const int64_t stride = args.destination.element_stride;
  const int32_t rotary_end = args.rotary_begin + args.rotary_width;
  for (int32_t e = 0; e < args.width; ++e) {
    if (angles != nullptr && e >= args.rotary_begin && e < rotary_end) continue;
    std::memcpy(destination + e * stride, source + e * kBytes, kBytes);
  }
  if (angles == nullptr) return;
  const int32_t half = args.rotary_width / 2;
  for (int32_t j = 0; j < half; ++j) {
    const int64_t first = args.rotary_begin + PairFirst(j, args.pairing);
    const int64_t second = args.rotary_begin + PairSecond(j, args.rotary_width, args.pairing);
    const float x = LoadElement<Element>(source + first * kBytes);
    const float y = LoadElement<Element>(source + second * kBytes);
    const float cosine = angles[j];
    const float sine = angles[half + j];
    StoreElement<Element>(x * cosine - y * sine, destination + first * stride);
    StoreElement<Element>(x * sine + y * cosine, destination + second * stride);
  }
}

template <typename Element>
void RealignElements(const RealignArgs& args, int64_t begin, int64_t end) {
  constexpr int64_t kBytes = sizeof(typename Element::Stored);
  const RealignRow* rows = ArrayOf<const RealignRow>(args.rows);
  const float* angles = args.rotary_width == 0 ? nullptr : ArrayOf<const float>(args.angles);
  const std::byte* source = args.source.host() + args.slab_offset;
  const int64_t head_bytes = args.width * kBytes;
  for (int64_t i = begin; i < end; ++i) {
    const RealignRow& row = rows[i];
    if (row.slot < 0) continue;
    const std::byte* from = source + row.chunk_offset + row.chunk_token * args.heads * head_bytes;
    const float* row_angles = nullptr;
    if (angles != nullptr && row.angle_row >= 0) {
      row_angles = angles + int64_t{row.angle_row} * args.rotary_width;
    }
    for (int32_t head = 0; head < args.heads; ++head) {
      std::byte* to = args.destination.memory.host() + args.destination.Offset(row.slot, head, 0);
      RealignHead<Element>(args, from + head * head_bytes, to, row_angles);
    }
  }
}

}  // namespace

void RealignStrided(const RealignArgs& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case Dtype::kFloat32:
      return RealignElements<Float32Element>(args, begin, end);
    case Dtype::kFloat16:
      return RealignElements<Float16Element>(args, begin, end);
    case Dtype::kBfloat16:
      return RealignElements<Bfloat16Element>(args, begin, end);
  }
}

}  // namespace semshare
