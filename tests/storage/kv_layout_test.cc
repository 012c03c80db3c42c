#include "storage/kv_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace semshare {
namespace {

using ::testing::HasSubstr;

PlaneLayout Plane(int32_t heads, int32_t width, int32_t rotary = -1) {
  PlaneLayout plane;
  plane.name = "k";
  plane.heads = heads;
  plane.width = width;
  plane.rotary = rotary;
  return plane;
}

RotaryDescriptor Rotary(int32_t begin, int32_t width) {
  RotaryDescriptor rotary;
  rotary.begin = begin;
  rotary.width = width;
  rotary.inv_freq.assign(static_cast<size_t>(width / 2), 1.0);
  return rotary;
}

std::string Error(Dtype dtype, std::vector<std::vector<PlaneLayout>> layers,
                  std::vector<RotaryDescriptor> rotaries = {}) {
  const auto layout = KvLayout::Create(dtype, std::move(layers), std::move(rotaries));
  if (layout.ok()) return "OK";
  EXPECT_TRUE(absl::IsInvalidArgument(layout.status()));
  return std::string(layout.status().message());
}

TEST(KvLayoutTest, OffsetsAndSizes) {
  // SmolLM2: 3 heads of 64. The odd plane shows the alignment: 64 * 3 * 2 = 384 bytes.
  const auto layout = KvLayout::Create(
      Dtype::kFloat16, {{Plane(3, 64, 0), Plane(1, 3)}, {Plane(3, 64, 0)}}, {Rotary(0, 64)});
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->layers(), 2);
  EXPECT_EQ(layout->planes(0)[0].row_bytes, 384);
  EXPECT_EQ(layout->planes(0)[0].slab_offset, 0);
  EXPECT_EQ(layout->planes(0)[1].row_bytes, 6);
  EXPECT_EQ(layout->planes(0)[1].slab_offset, 64 * 384);
  EXPECT_EQ(layout->planes(1)[0].slab_offset, 64 * 384 + 512);
  EXPECT_EQ(layout->chunk_bytes(), 2 * 64 * 384 + 512);
  EXPECT_EQ(layout->token_bytes(), 384 + 6 + 384);
}

TEST(KvLayoutTest, Layers) {
  const std::vector<PlaneLayout> one = {Plane(1, 1)};
  EXPECT_THAT(Error(Dtype::kFloat32, {}), HasSubstr("layers"));
  EXPECT_EQ(Error(Dtype::kFloat32, std::vector<std::vector<PlaneLayout>>(kMaxLayers, one)), "OK");
  EXPECT_THAT(Error(Dtype::kFloat32, std::vector<std::vector<PlaneLayout>>(kMaxLayers + 1, one)),
              HasSubstr("layers"));
}

TEST(KvLayoutTest, Planes) {
  EXPECT_THAT(Error(Dtype::kFloat32, {{}}), HasSubstr("layers[0].planes"));
  EXPECT_EQ(Error(Dtype::kFloat32, {std::vector<PlaneLayout>(kMaxPlanesPerLayer, Plane(1, 1))}),
            "OK");
  EXPECT_THAT(
      Error(Dtype::kFloat32, {std::vector<PlaneLayout>(kMaxPlanesPerLayer + 1, Plane(1, 1))}),
      HasSubstr("layers[0].planes"));
}

TEST(KvLayoutTest, HeadsAndWidths) {
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(0, 1)}}), HasSubstr("heads"));
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(-1, 1)}}), HasSubstr("heads"));
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(1, 0)}}), HasSubstr("width"));
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(INT32_MAX, INT32_MAX)}}), HasSubstr("heads"));
  EXPECT_THAT(Error(static_cast<Dtype>(9), {{Plane(1, 1)}}), HasSubstr("dtype"));
}

TEST(KvLayoutTest, ChunkBytes) {
  const auto elements = static_cast<int32_t>(kMaxChunkBytes / kChunkTokens / 4);
  EXPECT_EQ(Error(Dtype::kFloat32, {{Plane(1, elements)}}), "OK");
  EXPECT_NE(Error(Dtype::kFloat32, {{Plane(1, elements + 1)}}), "OK");
  // Together, not only one by one.
  EXPECT_EQ(Error(Dtype::kFloat32, {{Plane(1, elements / 2)}, {Plane(1, elements / 2)}}), "OK");
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(1, elements / 2)}, {Plane(1, elements / 2 + 1)}}),
              HasSubstr("layers[1]"));
}

TEST(KvLayoutTest, RotaryRanges) {
  EXPECT_EQ(Error(Dtype::kFloat32, {{Plane(1, 64, 0)}}, {Rotary(32, 32)}), "OK");
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(1, 64, 0)}}, {Rotary(33, 32)}), HasSubstr("rotary"));
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(1, 64, 1)}}, {Rotary(0, 32)}), HasSubstr("rotary"));
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(1, 64, -2)}}, {Rotary(0, 32)}), HasSubstr("rotary"));
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(1, 64)}}, {Rotary(-1, 32)}), HasSubstr("begin"));
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(1, 64)}}, {Rotary(0, 0)}), HasSubstr("width"));
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(1, 64)}}, {Rotary(0, 31)}), HasSubstr("width"));
  RotaryDescriptor short_table = Rotary(0, 32);
  short_table.inv_freq.pop_back();
  EXPECT_THAT(Error(Dtype::kFloat32, {{Plane(1, 64)}}, {short_table}), HasSubstr("inv_freq"));
}

}  // namespace
}  // namespace semshare
