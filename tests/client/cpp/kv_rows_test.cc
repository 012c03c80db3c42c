#include "client/cpp/kv_rows.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>

namespace semshare::client {
namespace {

v1::ModelSpec Spec() {
  v1::ModelSpec spec;
  spec.set_layers(3);
  spec.set_dtype(v1::DTYPE_BFLOAT16);
  v1::LayerGroup* group = spec.add_layer_groups();
  group->add_layers(0);
  group->add_layers(2);
  for (const char* name : {"k", "v"}) {
    v1::PlaneSpec* plane = group->add_planes();
    plane->set_name(name);
    plane->set_heads(2);
    plane->set_width(8);
  }
  group = spec.add_layer_groups();
  group->add_layers(1);
  v1::PlaneSpec* plane = group->add_planes();
  plane->set_name("latent");
  plane->set_heads(1);
  plane->set_width(20);
  return spec;
}

TEST(KvShapeTest, FollowsTheLayerGroups) {
  absl::StatusOr<KvShape> shape = ShapeOf(Spec());
  ASSERT_TRUE(shape.ok()) << shape.status();
  const std::vector<std::vector<int64_t>> expected = {{32, 32}, {40}, {32, 32}};
  EXPECT_EQ(shape->row_bytes, expected);
  EXPECT_EQ(shape->BytesPerToken(), 168);
}

TEST(KvShapeTest, RefusesSpecsThatDescribeNoCache) {
  const auto refused = [](const v1::ModelSpec& spec) {
    return absl::IsInvalidArgument(ShapeOf(spec).status());
  };
  v1::ModelSpec spec = Spec();
  spec.clear_dtype();
  EXPECT_TRUE(refused(spec));
  spec = Spec();
  spec.set_layers(0);
  EXPECT_TRUE(refused(spec));
  spec.set_layers(1025);
  EXPECT_TRUE(refused(spec));
  spec.set_layers(4);
  EXPECT_TRUE(refused(spec)) << "layer 3 is missing";
  spec = Spec();
  spec.mutable_layer_groups(1)->add_layers(2);
  EXPECT_TRUE(refused(spec)) << "layer 2 twice";
  spec = Spec();
  spec.mutable_layer_groups(1)->add_layers(3);
  EXPECT_TRUE(refused(spec)) << "layer 3 of 3";
  spec = Spec();
  spec.mutable_layer_groups(0)->mutable_planes(0)->set_heads(0);
  EXPECT_TRUE(refused(spec));
  spec = Spec();
  spec.mutable_layer_groups(0)->mutable_planes(0)->set_width(65537);
  EXPECT_TRUE(refused(spec));
  spec = Spec();
  for (int i = 0; i < 8; ++i) {
    *spec.mutable_layer_groups(1)->add_planes() = spec.layer_groups(1).planes(0);
  }
  EXPECT_TRUE(refused(spec)) << "9 planes";
}

TEST(PieceReaderTest, CopiesSkipsAndTakesAcrossPieces) {
  const std::string text = "abcdefghij";
  const absl::Span<const char> all = absl::MakeConstSpan(text);
  const std::vector<absl::Span<const char>> pieces = {all.subspan(0, 3), all.subspan(3, 0),
                                                      all.subspan(3, 4), all.subspan(7)};
  PieceReader reader(pieces);
  EXPECT_EQ(reader.left(), 10);
  char two[2];
  reader.Copy(two, 2);
  EXPECT_EQ(std::string(two, 2), "ab");
  reader.Skip(2);
  const auto taken = reader.Take(5);
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_EQ(std::string(taken[0].begin(), taken[0].end()), "efg");
  EXPECT_EQ(std::string(taken[1].begin(), taken[1].end()), "hi");
  EXPECT_EQ(reader.left(), 1);
  reader.Copy(two, 1);
  EXPECT_EQ(two[0], 'j');
  EXPECT_EQ(reader.left(), 0);
}

// The same rows in the two usual orders: 2 heads of 4 bytes, 5 rows.
struct Memory {
  std::vector<char> bytes = std::vector<char>(40);

  // [token][head][width].
  PlaneView TokenMajor() { return {bytes.data(), 5, 8, 4, 2, 4}; }
  // [head][token][width].
  PlaneView HeadMajor() { return {bytes.data(), 5, 4, 20, 2, 4}; }
};

TEST(RowViewsTest, StridesAreData) {
  Memory from;
  std::iota(from.bytes.begin(), from.bytes.end(), char{0});
  Memory to;
  const RowSource source = FromViews({{from.HeadMajor()}});
  const RowSink sink = IntoViews({{to.TokenMajor()}});
  for (const RowRange range : {RowRange{0, 0, 0, 2}, RowRange{0, 0, 2, 3}}) {
    std::vector<char> rows(range.count * 8);
    ASSERT_TRUE(source.fill(range, absl::MakeSpan(rows)).ok());
    const absl::Span<const char> all = absl::MakeConstSpan(rows);
    // In pieces that respect no row.
    ASSERT_TRUE(sink(range, {all.subspan(0, 5), all.subspan(5)}).ok());
  }
  for (int row = 0; row < 5; ++row) {
    for (int head = 0; head < 2; ++head) {
      for (int byte = 0; byte < 4; ++byte) {
        EXPECT_EQ(to.bytes[row * 8 + head * 4 + byte], head * 20 + row * 4 + byte);
      }
    }
  }
}

TEST(RowViewsTest, RangesOutsideAreRefused) {
  Memory memory;
  const RowSource source = FromViews({{memory.TokenMajor()}});
  const RowSink sink = IntoViews({{memory.TokenMajor()}});
  std::vector<char> rows(48);
  const auto refused = [&](const RowRange& range, size_t bytes) {
    const absl::Span<char> span = absl::MakeSpan(rows).subspan(0, bytes);
    return absl::IsInvalidArgument(source.fill(range, span)) &&
           absl::IsInvalidArgument(sink(range, {span}));
  };
  EXPECT_TRUE(refused({1, 0, 0, 1}, 8));
  EXPECT_TRUE(refused({0, 1, 0, 1}, 8));
  EXPECT_TRUE(refused({0, 0, 0, 6}, 48));
  EXPECT_TRUE(refused({0, 0, UINT32_MAX, 1}, 8));
  EXPECT_TRUE(refused({0, 0, 0, 2}, 15));
  EXPECT_FALSE(refused({0, 0, 0, 5}, 40));
}

TEST(RowViewsTest, RowsThatLieSideBySideAreLentIfSomebodyOwnsThem) {
  Memory memory;
  EXPECT_EQ(FromViews({{memory.TokenMajor()}}).lend, nullptr);
  auto owner = std::make_shared<int>(0);
  const RowRange range = {0, 0, 1, 3};
  {
    const RowSource source = FromViews({{memory.TokenMajor()}}, owner);
    const auto lent = source.lend(range, 24);
    ASSERT_TRUE(lent.ok());
    EXPECT_EQ(lent->bytes.data(), memory.bytes.data() + 8);
    EXPECT_EQ(lent->bytes.size(), 24u);
    EXPECT_EQ(lent->owner, owner);
    EXPECT_TRUE(absl::IsInvalidArgument(source.lend({0, 0, 0, 6}, 48).status()));
    const auto strided = FromViews({{memory.HeadMajor()}}, owner).lend(range, 24);
    ASSERT_TRUE(strided.ok());
    EXPECT_TRUE(strided->bytes.empty());
  }
  EXPECT_EQ(owner.use_count(), 1);
}

}  // namespace
}  // namespace semshare::client
