#include "kernels/cpu/realign_strided.h"

#include <cstddef>
#include <cstring>

#include "kernels/cpu/operations.h"
#include "kernels/elements.h"

namespace semshare {
namespace {

template <typename Stored>
Stored LoadStored(const std::byte* at) {
  Stored stored;
  std::memcpy(&stored, at, sizeof(stored));
  return stored;
}

template <typename Element>
void StoreElement(typename Element::Stored stored, std::byte* at) {
  std::memcpy(at, &stored, sizeof(stored));
}

// One head of one row; angles == nullptr copies it.
template <typename Element, Codec kCodec>
void RealignHead(const RealignArgs& args, const std::byte* source, float scale,
                 std::byte* destination, const float* angles) {
  using Source = Coded<Element, kCodec>;
  using Stored = typename Source::Stored;
  constexpr int64_t kBytes = sizeof(Stored);
  const int64_t stride = args.destination.element_stride;
  const int32_t rotary_end = args.rotary_begin + args.rotary_width;
  for (int32_t e = 0; e < args.width; ++e) {
    if (angles != nullptr && e >= args.rotary_begin && e < rotary_end) continue;
    StoreElement<Element>(Source::Copy(LoadStored<Stored>(source + e * kBytes), scale),
                          destination + e * stride);
  }
  if (angles == nullptr) return;
  const int32_t half = args.rotary_width / 2;
  for (int32_t j = 0; j < half; ++j) {
    const int64_t first = args.rotary_begin + PairFirst(j, args.pairing);
    const int64_t second = args.rotary_begin + PairSecond(j, args.rotary_width, args.pairing);
    const float x = Source::Load(LoadStored<Stored>(source + first * kBytes), scale);
    const float y = Source::Load(LoadStored<Stored>(source + second * kBytes), scale);
    const RotatedPair turned = RotatePair(x, y, angles[j], angles[half + j]);
    StoreElement<Element>(Element::Store(turned.x), destination + first * stride);
    StoreElement<Element>(Element::Store(turned.y), destination + second * stride);
  }
}

template <typename Element, Codec kCodec>
void RealignElements(const RealignArgs& args, int64_t begin, int64_t end) {
  const RealignRow* rows = ArrayOf<const RealignRow>(args.rows);
  const float* angles = args.rotary_width == 0 ? nullptr : ArrayOf<const float>(args.angles);
  const int64_t head_bytes = args.width * StoredBytes(args.codec, args.dtype);
  for (int64_t i = begin; i < end; ++i) {
    const RealignRow& row = rows[i];
    if (row.slot < 0) continue;
    const std::byte* chunk = args.source.host() + row.chunk_offset;
    const int64_t first_head = int64_t{row.chunk_token} * args.heads;
    const float* row_angles = nullptr;
    if (angles != nullptr && row.angle_row >= 0) {
      row_angles = angles + int64_t{row.angle_row} * args.rotary_width;
    }
    for (int32_t head = 0; head < args.heads; ++head) {
      float scale = 1;
      if constexpr (kCodec != Codec::kRaw) {
        scale = LoadStored<float>(chunk + args.scale_offset +
                                  (first_head + head) * static_cast<int64_t>(sizeof(float)));
      }
      std::byte* to = args.destination.memory.host() + args.destination.Offset(row.slot, head, 0);
      RealignHead<Element, kCodec>(
          args, chunk + args.slab_offset + (first_head + head) * head_bytes, scale, to, row_angles);
    }
  }
}

template <typename Element>
void RealignCodec(const RealignArgs& args, int64_t begin, int64_t end) {
  switch (args.codec) {
    case Codec::kRaw:
      return RealignElements<Element, Codec::kRaw>(args, begin, end);
    case Codec::kFp8E4m3:
      return RealignElements<Element, Codec::kFp8E4m3>(args, begin, end);
    case Codec::kInt8:
      return RealignElements<Element, Codec::kInt8>(args, begin, end);
  }
}

}  // namespace

void RealignStrided(const RealignArgs& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case Dtype::kFloat32:
      return RealignCodec<Float32Element>(args, begin, end);
    case Dtype::kFloat16:
      return RealignCodec<Float16Element>(args, begin, end);
    case Dtype::kBfloat16:
      return RealignCodec<Bfloat16Element>(args, begin, end);
  }
}

}  // namespace semshare
