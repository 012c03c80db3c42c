// The realign kernel's code, run on the CPU over the grid that a launch would have.
#include "kernels/cuda/realign_row.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "kernels/checks.h"
#include "tests/kernels/realign_problem.h"

namespace semshare {
namespace {

constexpr int kLanes = 32;

// Counts the accesses of 16 bytes, so that a test knows which path ran.
struct CountingAccess {
  static inline int64_t wide = 0;

  template <class T>
  static T Load(const std::byte* from) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(from) % alignof(T), 0U);
    return AlignedAccess::Load<T>(from);
  }
  template <class T>
  static void Store(const T& value, std::byte* to) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(to) % alignof(T), 0U);
    if (sizeof(T) == 16) ++wide;
    AlignedAccess::Store(value, to);
  }
};

// Every row of every plane, lane by lane, as the grid has them. Returns the bad rows.
template <class Element, Codec kCodec>
int64_t RunGrid(const RealignLaunch& launch) {
  int64_t bad = 0;
  for (int plane = 0; plane < launch.plane_count; ++plane) {
    for (int64_t row = 0; row < launch.row_count; ++row) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const bool good =
            RealignOneRow<CountingAccess, Element, kCodec>(launch, plane, row, lane, kLanes);
        if (!good && lane == 0) ++bad;
      }
    }
  }
  return bad;
}

template <class Element>
int64_t RunCodec(const RealignLaunch& launch, Codec codec) {
  switch (codec) {
    case Codec::kRaw:
      return RunGrid<Element, Codec::kRaw>(launch);
    case Codec::kFp8E4m3:
      return RunGrid<Element, Codec::kFp8E4m3>(launch);
    case Codec::kInt8:
      return RunGrid<Element, Codec::kInt8>(launch);
  }
  return -1;
}

int64_t RunLaunch(const RealignLaunch& launch, Dtype dtype, Codec codec) {
  switch (dtype) {
    case Dtype::kFloat32:
      return RunCodec<Float32Element>(launch, codec);
    case Dtype::kFloat16:
      return RunCodec<Float16Element>(launch, codec);
    case Dtype::kBfloat16:
      return RunCodec<Bfloat16Element>(launch, codec);
  }
  return -1;
}

// Memory at an address that is a multiple of 256, plus `shift`.
class Shifted {
 public:
  template <class T>
  Shifted(const std::vector<T>& values, size_t shift)
      : bytes_(static_cast<int64_t>(values.size() * sizeof(T))),
        memory_(values.size() * sizeof(T) + 512) {
    const uintptr_t base = reinterpret_cast<uintptr_t>(memory_.data());
    begin_ = memory_.data() + (256 - base % 256) % 256 + shift;
    if (bytes_ > 0) std::memcpy(begin_, values.data(), static_cast<size_t>(bytes_));
  }

  MemorySpan span() const { return HostSpan(begin_, bytes_); }
  std::vector<std::byte> bytes() const { return {begin_, begin_ + bytes_}; }

 private:
  int64_t bytes_;
  std::vector<std::byte> memory_;
  std::byte* begin_ = nullptr;
};

// One problem; returns the number of wide stores.
int64_t RunShape(const RealignShape& shape, size_t shift) {
  const RealignProblem problem(shape);
  const Shifted source(problem.source(), shift);
  const Shifted rows(problem.rows(), 0);
  const Shifted angles(problem.angles(), shift);
  const Shifted destination(problem.blank(), shift);
  const RealignArgs args =
      problem.Args(source.span(), rows.span(), angles.span(), destination.span());
  EXPECT_EQ(CheckRealign(args), absl::OkStatus());
  CountingAccess::wide = 0;
  EXPECT_EQ(RunLaunch(MakeLaunch(absl::MakeConstSpan(&args, 1)), shape.dtype, shape.codec), 0);
  problem.Verify(destination.bytes());
  return CountingAccess::wide;
}

TEST(RealignRowTest, EveryShapeAndLayout) {
  int64_t shapes_with_units = 0;
  for (const RealignShape& shape : AllRealignShapes()) {
    SCOPED_TRACE(shape.Name());
    if (RunShape(shape, 0) > 0) ++shapes_with_units;
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(shapes_with_units, 100);
}

// The same answers where addresses allow no 16-byte access: the element path of every shape.
TEST(RealignRowTest, EveryShapeWithoutAlignment) {
  for (const RealignShape& shape : AllRealignShapes()) {
    SCOPED_TRACE(shape.Name());
    EXPECT_EQ(RunShape(shape, 4), 0);
    if (testing::Test::HasFailure()) return;
  }
}

// A Llama plane takes 16-byte accesses only: 8 heads of 128 elements of 2 bytes are 128 units.
TEST(RealignRowTest, LlamaRowsAreUnits) {
  for (const TestLayout layout :
       {TestLayout::kContiguous, TestLayout::kPagedNhd, TestLayout::kPagedHnd}) {
    for (const RotaryPairing pairing : {RotaryPairing::kHalfSplit, RotaryPairing::kInterleaved}) {
      RealignShape shape;
      shape.dtype = Dtype::kBfloat16;
      shape.pairing = pairing;
      shape.heads = 8;
      shape.width = shape.rotary_width = 128;
      shape.layout = layout;
      int64_t written = 0;
      const RealignProblem problem(shape);
      for (const RealignRow& row : problem.rows()) written += row.slot >= 0;
      EXPECT_EQ(RunShape(shape, 0), written * 128);
    }
  }
}

// Float16 NaN payloads of copied rows, byte for byte, through both paths.
TEST(RealignRowTest, CopiesKeepEveryBit) {
  std::vector<uint16_t> values;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) values.push_back(static_cast<uint16_t>(bits));
  const std::vector<uint16_t> blank(values.size());
  std::vector<RealignRow> rows;
  for (int64_t row = 0; row < 0x10000 / 64; ++row) {
    rows.push_back({0, static_cast<int32_t>(row), -1, row});
  }
  for (const size_t shift : {0, 2}) {
    const Shifted source(values, shift);
    const Shifted destination(blank, shift);
    RealignArgs args;
    args.dtype = Dtype::kFloat16;
    args.heads = 1;
    args.width = 64;
    args.source = source.span();
    args.rows = HostSpan(rows.data(), static_cast<int64_t>(rows.size()));
    args.row_count = static_cast<int64_t>(rows.size());
    args.destination = ContiguousView(destination.span(), 1, 64, args.dtype);
    EXPECT_EQ((RunGrid<Float16Element, Codec::kRaw>(MakeLaunch(absl::MakeConstSpan(&args, 1)))), 0);
    EXPECT_EQ(destination.bytes(), source.bytes());
  }
}

class BadRowsTest : public testing::Test {
 protected:
  BadRowsTest() {
    args_.heads = 2;
    args_.width = args_.rotary_width = 4;
    args_.source = source_.span();
    args_.rows = HostSpan(&row_, 1);
    args_.row_count = 1;
    args_.angles = angles_.span();
    args_.angle_rows = 2;
    args_.destination = ContiguousView(destination_.span(), 2, 4, args_.dtype);
  }

  // Whether the kernel refuses the row, which then writes nothing; CheckRealign must agree.
  bool Refused() {
    const std::vector<std::byte> before = destination_.bytes();
    const int64_t bad =
        RunLaunch(MakeLaunch(absl::MakeConstSpan(&args_, 1)), args_.dtype, args_.codec);
    if (bad != 0) {
      EXPECT_EQ(destination_.bytes(), before);
    }
    EXPECT_EQ(CheckRealign(args_).ok(), bad == 0) << CheckRealign(args_);
    return bad != 0;
  }

  // Four rows of 32 bytes each.
  const Shifted source_{std::vector<float>(32, 1.0F), 0};
  const Shifted angles_{std::vector<float>(8, 0.5F), 0};
  const Shifted destination_{std::vector<float>(32, 0.0F), 0};
  RealignRow row_{0, 3, 1, 3};
  RealignArgs args_;
};

TEST_F(BadRowsTest, AtTheLimitAndBeyond) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_FALSE(Refused());
  for (const RealignRow& bad :
       {RealignRow{0, 4, 0, 0}, RealignRow{4, 3, 0, 0}, RealignRow{-4, 3, 0, 0},
        RealignRow{0, -1, 0, 0}, RealignRow{2, 0, 0, 0}, RealignRow{kMax - 3, 0, 0, 0},
        RealignRow{kMax / 2 + 1, std::numeric_limits<int32_t>::max(), 0, 0}, RealignRow{0, 0, 2, 0},
        RealignRow{0, 0, -2, 0}, RealignRow{0, 0, 0, 4}, RealignRow{0, 0, 0, kMax}}) {
    row_ = bad;
    EXPECT_TRUE(Refused()) << bad.chunk_offset << " " << bad.chunk_token << " " << bad.slot;
  }
  row_ = {kMax, -7, 99, -1};  // skipped: nothing of it counts
  EXPECT_FALSE(Refused());
}

TEST_F(BadRowsTest, StridesThatOverflow) {
  row_.slot = 1;
  args_.destination.block_stride = int64_t{1} << 61;
  EXPECT_TRUE(Refused());
  args_.destination.block_stride = -32;
  EXPECT_TRUE(Refused());
  args_.destination.block_tokens = int64_t{1} << 40;
  args_.destination.token_stride = int64_t{1} << 59;
  EXPECT_TRUE(Refused());
  row_.slot = int64_t{1} << 39;
  EXPECT_TRUE(Refused());
}

TEST_F(BadRowsTest, ScalesBeyondTheSource) {
  args_.codec = Codec::kInt8;
  row_ = {0, 3, 1, 3};
  args_.scale_offset = 96;  // four tokens of two scales: to the end
  EXPECT_FALSE(Refused());
  args_.scale_offset = 100;
  EXPECT_TRUE(Refused());
  args_.scale_offset = 0;
  row_.chunk_offset = 2;  // scales would not be aligned
  EXPECT_TRUE(Refused());
}

// Offsets above 2^31 in every term: addresses are formed, not touched.
TEST(PlaceRowTest, OffsetsAreSixtyFourBits) {
  RealignArgs args;
  args.dtype = Dtype::kBfloat16;
  args.heads = 32;
  args.width = 128;
  args.rotary_width = 64;
  args.angle_rows = 100000000;
  args.source = {0x1000, int64_t{1} << 50, MemoryKind::kDevice};
  args.slab_offset = int64_t{3} << 32;
  args.angles = {0x2000, args.angle_rows * 64 * 4, MemoryKind::kDevice};
  args.destination =
      ContiguousView({0x3000, int64_t{1} << 50, MemoryKind::kDevice}, 32, 128, args.dtype);
  args.destination.block_tokens = 16;
  args.destination.block_stride = int64_t{1} << 33;
  args.destination.token_stride = int64_t{1} << 20;
  const RealignLaunch launch = MakeLaunch(absl::MakeConstSpan(&args, 1));
  const RealignRow row{int64_t{5} << 40, 1000000, 99999999, 16 * 1000 + 7};
  const RowPlace place =
      PlaceRow<Coded<Bfloat16Element, Codec::kRaw>>(launch, launch.planes[0], row, false);
  ASSERT_EQ(place.state, RowPlace::kGood);
  const auto address = [](const void* pointer) { return reinterpret_cast<intptr_t>(pointer); };
  EXPECT_EQ(address(place.source),
            0x1000 + (int64_t{3} << 32) + (int64_t{5} << 40) + int64_t{1000000} * 32 * 128 * 2);
  EXPECT_EQ(address(place.destination), 0x3000 + 1000 * (int64_t{1} << 33) + (int64_t{7} << 20));
  EXPECT_EQ(address(place.angles), 0x2000 + int64_t{99999999} * 64 * 4);
}

}  // namespace
}  // namespace semshare
