// Limits and bounds: each field at its limit and one beyond.
#include "kernels/checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace semshare {
namespace {

constexpr int64_t kBig = std::numeric_limits<int64_t>::max();

// INVALID_ARGUMENT whose message names the field.
testing::AssertionResult Names(const absl::Status& status, absl::string_view field) {
  if (status.code() != absl::StatusCode::kInvalidArgument) {
    return testing::AssertionFailure() << "status: " << status;
  }
  if (status.message().find(field) == absl::string_view::npos) {
    return testing::AssertionFailure() << field << " is not named by: " << status;
  }
  return testing::AssertionSuccess();
}

// A good realign: 4 rows of 2 heads of 8 floats, into pages of 2 tokens.
class CheckRealignTest : public testing::Test {
 protected:
  CheckRealignTest() {
    args_.heads = 2;
    args_.width = 8;
    args_.rotary_width = 8;
    args_.source = HostSpan(source_.data(), 80);
    args_.slab_offset = 64;  // one row
    args_.row_count = 4;
    args_.angles = HostSpan(angles_.data(), 16);
    args_.angle_rows = 2;
    args_.destination.memory = HostSpan(destination_.data(), 64);
    args_.destination.block_tokens = 2;
    args_.destination.block_stride = 128;
    args_.destination.token_stride = 64;
    args_.destination.head_stride = 32;
    args_.destination.element_stride = 4;
    for (int32_t i = 0; i < 4; ++i) rows_.push_back({0, i, i % 2, i});
  }

  absl::Status Check() {
    args_.rows = HostSpan(rows_.data(), static_cast<int64_t>(rows_.size()));
    return CheckRealign(args_);
  }

  std::vector<float> source_ = std::vector<float>(80);
  std::vector<float> angles_ = std::vector<float>(16);
  std::vector<float> destination_ = std::vector<float>(64);
  std::vector<RealignRow> rows_;
  RealignArgs args_;
};

TEST_F(CheckRealignTest, GoodArguments) {
  EXPECT_EQ(Check(), absl::OkStatus());
  rows_[1].slot = -1;
  rows_[1].chunk_token = 1000;  // a skipped row is not looked at
  EXPECT_EQ(Check(), absl::OkStatus());
}

TEST_F(CheckRealignTest, Shape) {
  args_.heads = 0;
  EXPECT_TRUE(Names(Check(), "heads"));
  args_.heads = kMaxHeads + 1;
  EXPECT_TRUE(Names(Check(), "heads"));
  args_.heads = 2;
  args_.width = 0;
  EXPECT_TRUE(Names(Check(), "width"));
  args_.width = 8;
  args_.rotary_width = 7;
  EXPECT_TRUE(Names(Check(), "rotary_width"));
  args_.rotary_width = 10;
  EXPECT_TRUE(Names(Check(), "rotary_width"));
  args_.rotary_width = 8;
  args_.rotary_begin = 1;
  EXPECT_TRUE(Names(Check(), "rotary_begin"));
  args_.rotary_width = 6;
  args_.rotary_begin = 2;
  EXPECT_TRUE(Check().ok());
  args_.row_count = 5;
  EXPECT_TRUE(Names(Check(), "rows has"));
  args_.row_count = kMaxRealignRows + 1;
  EXPECT_TRUE(Names(Check(), "row_count"));
  args_.row_count = 4;
  args_.angle_rows = 3;
  EXPECT_TRUE(Names(Check(), "angles"));
  args_.angle_rows = 2;
  args_.slab_offset = -4;
  EXPECT_TRUE(Names(Check(), "slab_offset"));
}

TEST_F(CheckRealignTest, LimitsThemselvesAreAllowed) {
  args_.row_count = 0;
  rows_.clear();
  args_.heads = kMaxHeads;
  args_.width = kMaxWidth;
  EXPECT_TRUE(Check().ok());
  EXPECT_TRUE(KernelsSupportRealign(args_).ok());
}

TEST_F(CheckRealignTest, SourceBounds) {
  args_.source.bytes = 319;
  EXPECT_TRUE(Names(Check(), "rows[3] (chunk_offset"));
  args_.source.bytes = 320;
  EXPECT_TRUE(Check().ok());
  rows_[2].chunk_offset = 64;
  EXPECT_TRUE(Check().ok());  // the largest offset and the largest token are in different rows
  rows_[2].chunk_offset = 128;
  EXPECT_TRUE(Names(Check(), "rows[2]"));
  rows_[2].chunk_offset = kBig;
  EXPECT_TRUE(Names(Check(), "rows[2]"));
  rows_[2].chunk_offset = -64;
  EXPECT_TRUE(Names(Check(), "rows[2]"));
  rows_[2].chunk_offset = 2;
  EXPECT_TRUE(Names(Check(), "chunk_offset"));
  rows_[2].chunk_offset = 0;
  rows_[2].chunk_token = -1;
  EXPECT_TRUE(Names(Check(), "rows[2].chunk_token"));
  rows_[2].chunk_token = std::numeric_limits<int32_t>::max();
  EXPECT_TRUE(Names(Check(), "rows[2]"));
}

TEST_F(CheckRealignTest, AngleRows) {
  rows_[0].angle_row = -1;
  EXPECT_TRUE(Check().ok());
  rows_[0].angle_row = -2;
  EXPECT_TRUE(Names(Check(), "rows[0].angle_row"));
  rows_[0].angle_row = 2;
  EXPECT_TRUE(Names(Check(), "rows[0].angle_row"));
  args_.rotary_width = 0;  // the same rows serve planes that have no rotary range
  EXPECT_TRUE(Check().ok());
}

TEST_F(CheckRealignTest, DestinationBounds) {
  args_.destination.memory.bytes = 255;
  EXPECT_TRUE(Names(Check(), "rows[3].slot"));
  args_.destination.memory.bytes = 256;
  EXPECT_TRUE(Check().ok());
  for (const int64_t slot : {int64_t{4}, int64_t{1} << 40, kBig}) {
    rows_[3].slot = slot;
    EXPECT_TRUE(Names(Check(), "rows[3].slot"));
  }
  rows_[3].slot = 3;
  args_.destination.head_stride = 36;
  EXPECT_TRUE(Names(Check(), "slot"));
  args_.destination.head_stride = -32;
  EXPECT_TRUE(Names(Check(), "rows[0].slot"));
  args_.destination.head_stride = 0;
  EXPECT_TRUE(Check().ok());
  args_.destination.head_stride = kBig - 3;
  EXPECT_TRUE(Names(Check(), "destination"));
  args_.destination.head_stride = 32;
  args_.destination.block_stride = std::numeric_limits<int64_t>::min();
  EXPECT_TRUE(Names(Check(), "slot"));
  args_.destination.block_stride = 128;
  args_.destination.block_tokens = 0;
  EXPECT_TRUE(Names(Check(), "block_tokens"));
  args_.destination.block_tokens = 2;
  args_.destination.token_stride = 66;
  EXPECT_TRUE(Names(Check(), "token_stride"));
}

TEST_F(CheckRealignTest, NegativeStridesInsideAreAllowed) {
  // Slots 2 and 3, stored backwards: at 128 and 64.
  for (size_t i = 0; i < 4; ++i) rows_[i].slot = 2 + static_cast<int64_t>(i % 2);
  args_.destination.token_stride = -64;
  EXPECT_TRUE(Check().ok());
  rows_[0].slot = 1;
  EXPECT_TRUE(Names(Check(), "rows[0].slot"));
}

TEST_F(CheckRealignTest, HugeTermsThatCancelAreRefused) {
  args_.destination.block_tokens = kBig;
  args_.destination.token_stride = kBig - 3;
  rows_[0].slot = 3;
  EXPECT_TRUE(Names(Check(), "slot"));
}

TEST_F(CheckRealignTest, MissingAndMisalignedMemory) {
  args_.source.address = 0;
  EXPECT_TRUE(Names(Check(), "source"));
  args_.source = HostSpan(source_.data(), 80);
  args_.source.address += 2;
  EXPECT_TRUE(Names(Check(), "source"));
  args_.source.address -= 2;
  args_.destination.memory.address += 1;
  EXPECT_TRUE(Names(Check(), "destination"));
  args_.destination.memory.address = 0;
  EXPECT_TRUE(Names(Check(), "destination"));
  args_.destination.memory = HostSpan(destination_.data(), 64);
  args_.angles.address += 1;
  EXPECT_TRUE(Names(Check(), "angles"));
}

TEST_F(CheckRealignTest, DeviceTablesAreNotRead) {
  args_.rows = MemorySpan{64, 4 * sizeof(RealignRow), MemoryKind::kDevice};
  EXPECT_TRUE(CheckRealign(args_).ok());
}

TEST(ChecksTest, Project) {
  float memory[12] = {};
  ProjectArgs args{
      HostSpan(memory, 6), HostSpan(memory, 12), HostSpan(memory, 4), HostSpan(memory, 8), 2, 4, 3};
  EXPECT_TRUE(CheckProject(args).ok());
  args.m = 3;
  EXPECT_TRUE(Names(CheckProject(args), "a has"));
  args.m = -1;
  EXPECT_TRUE(Names(CheckProject(args), "m is"));
  args.m = kMaxProjectDim + 1;
  EXPECT_TRUE(Names(CheckProject(args), "m is"));
  args.m = 2;
  args.n = 5;
  EXPECT_TRUE(Names(CheckProject(args), "b has"));
  args.n = 4;
  args.bias.bytes = 12;
  EXPECT_TRUE(Names(CheckProject(args), "bias"));
  args.bias = MemorySpan{};
  EXPECT_TRUE(CheckProject(args).ok());
  args.c.bytes = 31;
  EXPECT_TRUE(Names(CheckProject(args), "c has"));
  args.m = args.n = args.k = kMaxProjectDim;
  EXPECT_TRUE(Names(CheckProject(args), "a"));
}

TEST(ChecksTest, Signature) {
  std::vector<float> projected(3 * 64), weights(3);
  std::vector<uint32_t> ids = {0, 1, 2, 1};
  std::vector<int64_t> windows = {0, 4, 2, 2};
  std::vector<uint64_t> codes(2);
  SignatureArgs args;
  args.projected = HostSpan(projected.data(), 192);
  args.weights = HostSpan(weights.data(), 3);
  args.vocab = 3;
  args.bits = 64;
  args.ids = HostSpan(ids.data(), 4);
  args.count = 4;
  args.windows = HostSpan(windows.data(), 4);
  args.window_count = 2;
  args.codes = HostSpan(codes.data(), 2);
  EXPECT_TRUE(CheckSignature(args).ok());
  ids[3] = 3;
  EXPECT_TRUE(Names(CheckSignature(args), "ids[3]"));
  ids[3] = 0;
  windows[1] = 5;
  EXPECT_TRUE(Names(CheckSignature(args), "windows[0]"));
  windows[1] = 4;
  windows[2] = 3;
  EXPECT_TRUE(Names(CheckSignature(args), "windows[1]"));
  windows[2] = 2;
  for (const int32_t bits : {0, 63, 65, kMaxCodeBits + 64, -64}) {
    args.bits = bits;
    EXPECT_TRUE(Names(CheckSignature(args), "bits"));
  }
  args.bits = 128;
  EXPECT_TRUE(Names(CheckSignature(args), "projected"));
  args.bits = 64;
  args.window_count = kBig;
  EXPECT_TRUE(Names(CheckSignature(args), "window_count"));
}

TEST(ChecksTest, HammingTopK) {
  std::vector<uint64_t> words(8);
  std::vector<int64_t> indices(kMaxTopK);
  std::vector<int32_t> distances(kMaxTopK);
  HammingTopKArgs args;
  args.codes = HostSpan(words.data(), 8);
  args.count = 2;
  args.words = 4;
  args.live = HostSpan(words.data(), 1);
  args.queries = HostSpan(words.data(), 4);
  args.query_count = 1;
  args.k = kMaxTopK;
  args.indices = HostSpan(indices.data(), kMaxTopK);
  args.distances = HostSpan(distances.data(), kMaxTopK);
  EXPECT_TRUE(CheckHammingTopK(args).ok());
  for (const int32_t k : {0, kMaxTopK + 1}) {
    args.k = k;
    EXPECT_TRUE(Names(CheckHammingTopK(args), "k is"));
  }
  args.k = kMaxTopK;
  args.count = 3;
  EXPECT_TRUE(Names(CheckHammingTopK(args), "codes"));
  args.count = 2;
  args.live.bytes = 7;
  EXPECT_TRUE(Names(CheckHammingTopK(args), "live"));
  args.live.bytes = 8;
  args.query_count = 2;
  EXPECT_TRUE(Names(CheckHammingTopK(args), "queries"));
  args.query_count = 1;
  args.words = kMaxCodeBits / 64 + 1;
  EXPECT_TRUE(Names(CheckHammingTopK(args), "words"));
  args.words = 4;
  args.distances.bytes -= 1;
  EXPECT_TRUE(Names(CheckHammingTopK(args), "distances"));
}

TEST(ChecksTest, TokenCodesAndNearestCode) {
  std::vector<float> floats(128);
  std::vector<uint32_t> ids = {0};
  std::vector<int64_t> numbers(2);
  std::vector<uint64_t> words(4);
  TokenCodesArgs args;
  args.table = HostSpan(floats.data(), 2);
  args.vocab = 1;
  args.width = 2;
  args.matrix = HostSpan(floats.data(), 128);
  args.bits = 64;
  args.ids = HostSpan(ids.data(), 1);
  args.positions = HostSpan(numbers.data(), 1);
  args.count = 1;
  args.codes = HostSpan(words.data(), 1);
  EXPECT_TRUE(CheckTokenCodes(args).ok());
  args.theta = 0;
  EXPECT_TRUE(Names(CheckTokenCodes(args), "theta"));
  args.theta = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(Names(CheckTokenCodes(args), "theta"));
  args.theta = 1e4;
  args.width = 3;
  EXPECT_TRUE(Names(CheckTokenCodes(args), "width"));
  args.width = 4;
  EXPECT_TRUE(Names(CheckTokenCodes(args), "table"));
  args.width = 2;
  ids[0] = 1;
  EXPECT_TRUE(Names(CheckTokenCodes(args), "ids[0]"));

  int32_t distance = 0;
  NearestCodeArgs nearest;
  nearest.queries = HostSpan(words.data(), 1);
  nearest.query_count = 1;
  nearest.codes = HostSpan(words.data(), 4);
  nearest.count = 4;
  nearest.words = 1;
  nearest.windows = HostSpan(numbers.data(), 2);
  nearest.indices = HostSpan(numbers.data(), 1);
  nearest.distances = HostSpan(&distance, 1);
  EXPECT_TRUE(CheckNearestCode(nearest).ok());
  numbers[1] = 5;
  EXPECT_TRUE(Names(CheckNearestCode(nearest), "windows[0]"));
}

TEST(ChecksTest, CopyAndChecksum) {
  char memory[16] = {};
  const MemorySpan span = HostSpan(memory, 16);
  EXPECT_TRUE(CheckCopy(span.Sub(0, 8), span.Sub(8, 8)).ok());
  EXPECT_TRUE(Names(CheckCopy(span.Sub(0, 8), span.Sub(7, 8)), "overlap"));
  EXPECT_TRUE(Names(CheckCopy(span.Sub(0, 8), span.Sub(8, 7)), "destination"));
  EXPECT_TRUE(CheckCopy(MemorySpan{}, MemorySpan{}).ok());
  EXPECT_TRUE(Names(CheckCopy(MemorySpan{0, 8}, span.Sub(0, 8)), "destination"));
  uint64_t digest = 0;
  EXPECT_TRUE(CheckChecksum({span}, HostSpan(&digest, 1)).ok());
  EXPECT_TRUE(Names(CheckChecksum({span, span}, HostSpan(&digest, 1)), "digests"));
  EXPECT_TRUE(Names(CheckChecksum({MemorySpan{0, 1}}, HostSpan(&digest, 1)), "spans[0]"));
  EXPECT_TRUE(Names(CheckChecksum({span}, MemorySpan{64, 8, MemoryKind::kDevice}), "digests"));
}

TEST(ChecksTest, RealignBatchLimit) {
  RealignArgs args;  // no rows
  args.heads = args.width = 1;
  args.destination = ContiguousView({}, 1, 1, args.dtype);
  std::vector<RealignArgs> batch(static_cast<size_t>(kMaxRealignBatch), args);
  EXPECT_EQ(CheckRealignBatch(batch), absl::OkStatus());
  batch.push_back(args);
  EXPECT_EQ(CheckRealignBatch(batch).code(), absl::StatusCode::kInvalidArgument);
}

// One token of two heads of four bytes, and their scales, at the very end of the source.
TEST(ChecksTest, ScalesOfCodecsAreBounded) {
  alignas(16) std::byte source[64] = {};
  alignas(16) std::byte destination[64] = {};
  RealignRow row{16, 1, -1, 0};
  RealignArgs args;
  args.codec = Codec::kInt8;
  args.heads = 2;
  args.width = 4;
  args.source = HostSpan(source, 64);
  args.slab_offset = 8;    // payload: 16 + 8 + 1 * 8 .. 40
  args.scale_offset = 32;  // scales: 16 + 32 + 1 * 8 .. 64
  args.rows = HostSpan(&row, 1);
  args.row_count = 1;
  args.destination = ContiguousView(HostSpan(destination, 64), 2, 4, args.dtype);
  EXPECT_EQ(CheckRealign(args), absl::OkStatus());
  args.scale_offset = 36;
  EXPECT_EQ(CheckRealign(args).code(), absl::StatusCode::kInvalidArgument);
  args.scale_offset = 30;
  EXPECT_EQ(CheckRealign(args).code(), absl::StatusCode::kInvalidArgument);
  args.scale_offset = -4;
  EXPECT_EQ(CheckRealign(args).code(), absl::StatusCode::kInvalidArgument);
  args.scale_offset = 32;
  row.chunk_offset = 14;  // payload bytes need no alignment, the scales of the chunk do
  EXPECT_EQ(CheckRealign(args).code(), absl::StatusCode::kInvalidArgument);
  row.chunk_offset = 16;
  args.slab_offset = 33;  // payload up to 65
  EXPECT_EQ(CheckRealign(args).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace semshare
