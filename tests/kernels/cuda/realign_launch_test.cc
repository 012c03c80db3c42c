#include "kernels/cuda/realign_launch.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

namespace semshare {
namespace {

constexpr int64_t kRowBytes = sizeof(RealignRow);

// A plane of 8 heads of 128 elements, bfloat16; V where rotary is 0.
RealignArgs Plane(int64_t index, int32_t rotary) {
  RealignArgs args;
  args.dtype = Dtype::kBfloat16;
  args.heads = 8;
  args.width = 128;
  args.rotary_width = rotary;
  args.source = {0x100000, int64_t{1} << 30, MemoryKind::kDevice};
  args.slab_offset = index * 4096;
  args.rows = {0x200000, 100 * kRowBytes, MemoryKind::kDevice};
  args.row_count = 100;
  if (rotary > 0) args.angles = {0x300000, 100 * rotary * 4, MemoryKind::kDevice};
  args.angle_rows = rotary > 0 ? 100 : 0;
  args.destination = ContiguousView(
      {0x400000 + static_cast<uintptr_t>(index) * 0x100000, 0x100000, MemoryKind::kDevice}, 8, 128,
      args.dtype);
  return args;
}

std::vector<RealignArgs> Layers(int64_t layers) {
  std::vector<RealignArgs> batch;
  for (int64_t layer = 0; layer < layers; ++layer) {
    batch.push_back(Plane(2 * layer, 128));
    batch.push_back(Plane(2 * layer + 1, 0));
  }
  return batch;
}

TEST(LaunchItemsTest, KeysAndValuesOfAllLayersShareALaunch) {
  const std::vector<RealignArgs> batch = Layers(40);
  EXPECT_EQ(LaunchItems(batch), 64U);
  EXPECT_EQ(LaunchItems(absl::MakeConstSpan(batch).subspan(64)), 16U);
  EXPECT_EQ(LaunchItems(absl::MakeConstSpan(batch).subspan(0, 1)), 1U);
  EXPECT_EQ(LaunchItems(absl::MakeConstSpan(batch).subspan(1)), 64U);  // a V first
}

TEST(LaunchItemsTest, WhateverDiffersEndsALaunch) {
  const auto differs = [](void (*change)(RealignArgs&)) {
    std::vector<RealignArgs> batch = Layers(4);
    change(batch[4]);
    return LaunchItems(batch);
  };
  EXPECT_EQ(differs([](RealignArgs&) {}), 8U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.dtype = Dtype::kFloat16; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.codec = Codec::kInt8; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.heads = 4; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.width = 64; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.rotary_width = 64; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.rotary_begin = 8; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.pairing = RotaryPairing::kInterleaved; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.rows.address += kRowBytes; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.rows.kind = MemoryKind::kHost; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { --args.row_count; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.angles.address += 512; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { --args.angle_rows; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.destination.block_tokens = 2; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.destination.block_stride += 2; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.destination.token_stride += 2; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.destination.head_stride += 2; }), 4U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.destination.element_stride += 2; }), 4U);
  // Where it lies may differ.
  EXPECT_EQ(differs([](RealignArgs& args) { args.source.address += 4096; }), 8U);
  EXPECT_EQ(differs([](RealignArgs& args) { args.destination.memory.bytes *= 2; }), 8U);
}

// Two copied planes share with anything; the rotated ones after them need not share with each
// other.
TEST(LaunchItemsTest, RotatedPlanesAreComparedWithEachOther) {
  std::vector<RealignArgs> batch = {Plane(0, 0), Plane(1, 128), Plane(2, 0), Plane(3, 64)};
  EXPECT_EQ(LaunchItems(batch), 3U);
}

TEST(MakeLaunchTest, TakesRotationFromTheFirstRotatedPlane) {
  const std::vector<RealignArgs> batch = {Plane(0, 0), Plane(1, 128), Plane(2, 0)};
  const RealignLaunch launch = MakeLaunch(batch);
  EXPECT_EQ(launch.plane_count, 3);
  EXPECT_EQ(launch.row_count, 100);
  EXPECT_EQ(launch.rotary_width, 128);
  EXPECT_EQ(launch.angle_begin, 0);
  EXPECT_EQ(launch.angle_end, 100);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(launch.angles), 0x300000U);
  EXPECT_EQ(launch.planes[0].rotates, 0);
  EXPECT_EQ(launch.planes[1].rotates, 1);
  EXPECT_EQ(launch.planes[2].rotates, 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(launch.planes[2].source), 0x100000U + 2 * 4096);
  EXPECT_EQ(launch.planes[2].source_bytes, (int64_t{1} << 30) - 2 * 4096);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(launch.planes[2].destination), 0x600000U);
  EXPECT_EQ(launch.planes[2].destination_bytes, 0x100000);
  EXPECT_EQ(launch.extent_low, 0);
  EXPECT_EQ(launch.extent_high, 8 * 128 * 2);
  EXPECT_TRUE(launch.vectors);
}

TEST(MakeLaunchTest, ExtentsOfNegativeStrides) {
  RealignArgs args = Plane(0, 0);
  args.destination.head_stride = -512;
  args.destination.element_stride = -2;
  const RealignLaunch launch = MakeLaunch(absl::MakeConstSpan(&args, 1));
  EXPECT_EQ(launch.extent_low, -7 * 512 - 127 * 2);
  EXPECT_EQ(launch.extent_high, 2);
  EXPECT_FALSE(launch.vectors);
}

bool VectorsFor(void (*change)(RealignArgs&), Dtype dtype = Dtype::kBfloat16) {
  RealignArgs args = Plane(0, 128);
  args.dtype = dtype;
  args.destination = ContiguousView(args.destination.memory, args.heads, args.width, dtype);
  change(args);
  return MakeLaunch(absl::MakeConstSpan(&args, 1)).vectors;
}

TEST(VectorsFitTest, OnlyWholeUnits) {
  EXPECT_TRUE(VectorsFor([](RealignArgs&) {}));
  EXPECT_TRUE(VectorsFor([](RealignArgs&) {}, Dtype::kFloat32));
  EXPECT_FALSE(VectorsFor([](RealignArgs& args) { args.destination.element_stride = 4; }));
  EXPECT_FALSE(VectorsFor([](RealignArgs& args) { args.destination.head_stride += 2; }));
  EXPECT_TRUE(VectorsFor([](RealignArgs& args) {
    args.heads = 1;  // its stride is never taken
    args.destination.head_stride += 2;
  }));
  EXPECT_TRUE(VectorsFor([](RealignArgs& args) { args.destination.token_stride += 2; }));
  EXPECT_FALSE(VectorsFor([](RealignArgs& args) { args.width = 132; }));
  EXPECT_FALSE(
      VectorsFor([](RealignArgs& args) { args.rotary_begin = 4, args.rotary_width = 96; }));
  EXPECT_TRUE(VectorsFor([](RealignArgs& args) { args.rotary_begin = 8, args.rotary_width = 96; }));
  // Half of 24 is no multiple of 8 elements; of 16-byte float32 units it is one.
  EXPECT_FALSE(VectorsFor([](RealignArgs& args) { args.rotary_width = 24; }));
  EXPECT_TRUE(VectorsFor([](RealignArgs& args) { args.rotary_width = 24; }, Dtype::kFloat32));
  EXPECT_TRUE(VectorsFor([](RealignArgs& args) {
    args.rotary_width = 24;
    args.pairing = RotaryPairing::kInterleaved;
  }));
  EXPECT_FALSE(VectorsFor([](RealignArgs& args) { args.rotary_width = 20; }));
}

TEST(SlotLimitTest, TermsStayBelowTwoToTheSixty) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  PlaneView view;
  EXPECT_EQ(SlotLimit(view), kMax);
  view.block_tokens = 16;
  view.block_stride = int64_t{1} << 50;
  EXPECT_EQ(SlotLimit(view), ((int64_t{1} << 10) + 1) * 16);
  view.block_stride = -(int64_t{1} << 50);
  EXPECT_EQ(SlotLimit(view), ((int64_t{1} << 10) + 1) * 16);
  view.token_stride = int64_t{1} << 58;  // 4 tokens, of 15
  EXPECT_EQ(SlotLimit(view), 5);
  view.block_stride = view.token_stride = std::numeric_limits<int64_t>::min();
  EXPECT_EQ(SlotLimit(view), 1);
  view = PlaneView{{}, kMax, 2, 2, 0, 0};
  EXPECT_EQ(SlotLimit(view), (int64_t{1} << 59) + 1);
}

TEST(NextPieceTest, PiecesCoverEveryRowAndFit) {
  std::mt19937 random(3);
  std::vector<RealignRow> rows(1000);
  for (RealignRow& row : rows) {
    row.angle_row = static_cast<int32_t>(random() % 5000) - 1;
    row.slot = random() % 10 == 0 ? -1 : 1;
  }
  constexpr int64_t kAngleBytes = 256;
  for (const int64_t capacity : {int64_t{4096}, int64_t{100000}, int64_t{1} << 30}) {
    int64_t next = 0;
    int pieces = 0;
    while (next < 1000) {
      const RealignPiece piece = NextPiece(rows, next, kAngleBytes, capacity);
      ASSERT_EQ(piece.row_begin, next);
      ASSERT_GT(piece.row_end, next);
      ASSERT_TRUE(PieceBytes(piece, kAngleBytes) <= capacity || piece.row_end == next + 1);
      for (int64_t i = piece.row_begin; i < piece.row_end; ++i) {
        const RealignRow& row = rows[static_cast<size_t>(i)];
        if (row.slot < 0 || row.angle_row < 0) continue;
        ASSERT_GE(row.angle_row, piece.angle_begin);
        ASSERT_LT(row.angle_row, piece.angle_end);
      }
      next = piece.row_end;
      ++pieces;
    }
    EXPECT_EQ(pieces == 1, capacity == int64_t{1} << 30);
  }
}

TEST(NextPieceTest, StopsExactlyAtTheCapacity) {
  std::vector<RealignRow> rows(100);
  for (int32_t i = 0; i < 100; ++i) rows[static_cast<size_t>(i)].angle_row = i;
  // 10 rows are 240 bytes and 10 angle rows; the angles begin at 256.
  const int64_t capacity = 256 + 10 * 512;
  EXPECT_EQ(NextPiece(rows, 0, 512, capacity).row_end, 10);
  EXPECT_EQ(NextPiece(rows, 0, 512, capacity - 1).row_end, 9);
  EXPECT_EQ(NextPiece(rows, 50, 512, capacity).row_end, 60);
  EXPECT_EQ(NextPiece(rows, 95, 512, capacity).row_end, 100);
}

TEST(NextPieceTest, RowsWithoutAnglesCarryNone) {
  const std::vector<RealignRow> rows(100);
  const RealignPiece piece = NextPiece(rows, 0, 512, 1 << 20);
  EXPECT_EQ(piece.row_end, 100);
  EXPECT_EQ(piece.angle_begin, piece.angle_end);
  EXPECT_EQ(PieceBytes(piece, 512), 100 * kRowBytes + 160);  // rounded up to 256
}

}  // namespace
}  // namespace semshare
