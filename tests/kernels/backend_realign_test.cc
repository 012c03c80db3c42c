// Conformance of realign: every backend, every shape and layout, against fp64.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "kernels/backend.h"
#include "kernels/checks.h"
#include "tests/kernels/backend_cases.h"
#include "tests/kernels/realign_problem.h"
#include "tests/kernels/rounding_problem.h"

namespace semshare {
namespace {

class BackendRealignTest : public BackendTest {
 protected:
  // Rows and angles in device memory, or in the host's.
  void RunProblem(const RealignShape& shape, bool tables_on_device) {
    SCOPED_TRACE(shape.Name());
    const RealignProblem problem(shape);
    const Buffer source = Upload(problem.source());
    const Buffer destination = Upload(problem.blank());
    const Buffer rows = Upload(problem.rows());
    const Buffer angles = Upload(problem.angles());
    RealignArgs args = problem.Args(source.span(), rows.span(), angles.span(), destination.span());
    if (!tables_on_device) {
      args.rows = HostSpan(problem.rows().data(), args.row_count);
      args.angles =
          HostSpan(problem.angles().data(), static_cast<int64_t>(problem.angles().size()));
    }
    ASSERT_EQ(backend_->SupportsRealign(args), absl::OkStatus());
    ASSERT_EQ(backend_->EnqueueRealign(lane_, args), absl::OkStatus());
    ASSERT_EQ(Finish(), absl::OkStatus());
    const int64_t bytes = static_cast<int64_t>(problem.blank().size());
    problem.Verify(Download<std::byte>(destination, bytes));
  }

  // One row of one head, [x0, x1] * angles; returns the row.
  std::vector<std::byte> RunSmall(RealignArgs args, const std::vector<RealignRow>& rows,
                                  const std::vector<std::byte>& source,
                                  const std::vector<float>& angles) {
    std::vector<std::byte> result(rows.size() * static_cast<size_t>(args.width) *
                                  static_cast<size_t>(DtypeBytes(args.dtype)));
    const Buffer from = NewHostMemory(source.data(), static_cast<int64_t>(source.size()));
    const Buffer to = NewHostMemory(result.data(), static_cast<int64_t>(result.size()));
    args.heads = 1;
    args.rotary_width = args.width;
    args.source = from.span();
    args.rows = HostSpan(rows.data(), static_cast<int64_t>(rows.size()));
    args.row_count = static_cast<int64_t>(rows.size());
    args.angles = HostSpan(angles.data(), static_cast<int64_t>(angles.size()));
    args.angle_rows = static_cast<int64_t>(angles.size()) / args.width;
    args.destination = ContiguousView(to.span(), 1, args.width, args.dtype);
    EXPECT_EQ(backend_->EnqueueRealign(lane_, args), absl::OkStatus());
    EXPECT_EQ(Finish(), absl::OkStatus());
    std::memcpy(result.data(), to.span().host(), result.size());
    return result;
  }
};

TEST_P(BackendRealignTest, EveryShapeAndLayout) {
  bool tables_on_device = false;
  for (const RealignShape& shape : AllRealignShapes()) {
    ASSERT_NO_FATAL_FAILURE(RunProblem(shape, tables_on_device));
    tables_on_device = !tables_on_device;
  }
}

TEST_P(BackendRealignTest, ManyRowsSplitOverThreads) {
  RealignShape shape;
  shape.dtype = Dtype::kBfloat16;
  shape.heads = 8;
  shape.width = shape.rotary_width = 128;
  shape.tokens = 2500;
  RunProblem(shape, true);
}

TEST_P(BackendRealignTest, NoRows) {
  RealignShape shape;
  shape.tokens = 0;
  RunProblem(shape, false);
}

TEST_P(BackendRealignTest, RoundsToNearestEven) {
  for (const Dtype dtype : {Dtype::kFloat16, Dtype::kBfloat16}) {
    for (const RotaryPairing pairing : {RotaryPairing::kHalfSplit, RotaryPairing::kInterleaved}) {
      RoundingProblem problem(dtype, pairing);
      RealignArgs args = problem.Args();
      const MemorySpan result = args.destination.memory;
      const Buffer source = NewHostMemory(args.source.host(), args.source.bytes);
      const Buffer destination = NewHostMemory(result.host(), result.bytes);
      args.source = source.span();
      args.destination.memory = destination.span();
      ASSERT_EQ(backend_->EnqueueRealign(lane_, args), absl::OkStatus());
      ASSERT_EQ(Finish(), absl::OkStatus());
      std::memcpy(result.host(), destination.span().host(), static_cast<size_t>(result.bytes));
      ASSERT_NO_FATAL_FAILURE(problem.Verify());
    }
  }
}

// Subnormals, infinities and NaN are read as what they are, and NaN stays NaN whatever its bits.
TEST_P(BackendRealignTest, ReadsEverySixteenBitElement) {
  std::vector<uint16_t> source;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) source.push_back(static_cast<uint16_t>(bits));
  constexpr int32_t kWidth = 64;
  std::vector<std::byte> bytes(source.size() * 2);
  std::memcpy(bytes.data(), source.data(), bytes.size());
  std::vector<float> angles(kWidth);
  std::fill_n(angles.begin(), kWidth / 2, 1.0F);
  std::vector<RealignRow> rows;
  for (int64_t row = 0; row < 0x10000 / kWidth; ++row) {
    rows.push_back({row * kWidth * 2, 0, 0, row});
  }
  for (const Dtype dtype : {Dtype::kFloat16, Dtype::kBfloat16}) {
    const uint32_t infinity = dtype == Dtype::kFloat16 ? 0x7C00 : 0x7F80;
    RealignArgs args;
    args.dtype = dtype;
    args.width = kWidth;
    const std::vector<std::byte> result = RunSmall(args, rows, bytes, angles);
    for (uint32_t expected = 0; expected < 0x10000; ++expected) {
      uint16_t actual;
      std::memcpy(&actual, &result[expected * 2], sizeof(actual));
      if ((expected & 0x7FFF) > infinity) {
        const uint32_t quiet = infinity + (infinity & -infinity) / 2;
        ASSERT_GE(actual & 0x7FFF, quiet) << DtypeName(dtype) << expected;
        continue;
      }
      // x * 1 - y * 0 is NaN where y is no number.
      if ((source[expected ^ (kWidth / 2)] & infinity) == infinity) continue;
      if ((expected & 0x7FFF) != 0) {  // the sign of zero is not promised
        ASSERT_EQ(actual, expected) << DtypeName(dtype);
      }
    }
  }
}

// Planes of one match, K turned and V copied, and a plane of another shape between them: in one
// call as one by one.
TEST_P(BackendRealignTest, ABatchIsItsItemsInOrder) {
  RealignShape turned;
  turned.dtype = Dtype::kBfloat16;
  turned.tokens = 100;
  RealignShape copied = turned;
  copied.rotary_width = 0;
  RealignShape other = turned;
  other.width = 24;
  other.rotary_width = 10;
  std::vector<RealignProblem> problems;
  for (int i = 0; i < 70; ++i) problems.emplace_back(i == 40 ? other : i % 2 ? copied : turned);
  std::vector<Buffer> sources, destinations;
  std::vector<RealignArgs> batch;
  for (const RealignProblem& problem : problems) {
    sources.push_back(Upload(problem.source()));
    destinations.push_back(Upload(problem.blank()));
    // The tables of the first plane serve all: rows and angles do not depend on the shape.
    const std::vector<RealignRow>& rows = problems[0].rows();
    const std::vector<float>& angles =
        &problem == &problems[40] ? problem.angles() : problems[0].angles();
    const bool own_rows = &problem == &problems[40];
    batch.push_back(problem.Args(
        sources.back().span(), HostSpan((own_rows ? problem.rows() : rows).data(), 100),
        HostSpan(angles.data(), static_cast<int64_t>(angles.size())), destinations.back().span()));
  }
  ASSERT_EQ(backend_->EnqueueRealign(lane_, batch), absl::OkStatus());
  ASSERT_EQ(Finish(), absl::OkStatus());
  for (size_t i = 0; i < problems.size(); ++i) {
    SCOPED_TRACE(i);
    const int64_t bytes = static_cast<int64_t>(problems[i].blank().size());
    ASSERT_NO_FATAL_FAILURE(problems[i].Verify(Download<std::byte>(destinations[i], bytes)));
  }
}

TEST_P(BackendRealignTest, ABadItemRefusesTheBatch) {
  RealignShape shape;
  const RealignProblem problem(shape);
  const Buffer source = Upload(problem.source());
  const Buffer destination = Upload(problem.blank());
  const Buffer rows = Upload(problem.rows());
  const Buffer angles = Upload(problem.angles());
  std::vector<RealignArgs> batch(
      3, problem.Args(source.span(), rows.span(), angles.span(), destination.span()));
  batch[2].heads = 0;
  const absl::Status status = backend_->EnqueueRealign(lane_, batch);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("realign[2]: heads"), absl::string_view::npos) << status;
  EXPECT_EQ(Finish(), absl::OkStatus());
  // Nothing was queued.
  EXPECT_EQ(Download<std::byte>(destination, destination.span().bytes), problem.blank());
  EXPECT_EQ(backend_->EnqueueRealign(lane_, absl::Span<const RealignArgs>()), absl::OkStatus());
}

// Destination addresses beyond 2^31, by a stride over memory of which only two pages are touched.
TEST_P(BackendRealignTest, OffsetsAboveTwoGiB) {
  constexpr int64_t kStride = (int64_t{1} << 32) + 4096;
  constexpr int64_t kBytes = kStride + 4096;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) GTEST_SKIP() << "no address space for a sparse mapping";
  const MemorySpan sparse = HostSpan(static_cast<char*>(memory), kBytes);
  absl::StatusOr<Buffer> registered = backend_->RegisterHost(sparse);
  if (!registered.ok()) {
    munmap(memory, kBytes);
    GTEST_SKIP() << "this machine does not lock 4 GiB: " << registered.status();
  }
  const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8};
  const Buffer source = NewHostMemory(values.data(), 32);
  const std::vector<float> angles = {0, 0, 1, 1};  // a quarter turn
  const std::vector<RealignRow> rows = {{0, 0, -1, 0}, {0, 1, 0, 1}};
  RealignArgs args;
  args.heads = 1;
  args.width = args.rotary_width = 4;
  args.source = source.span();
  args.rows = HostSpan(rows.data(), 2);
  args.row_count = 2;
  args.angles = HostSpan(angles.data(), 4);
  args.angle_rows = 1;
  args.destination = ContiguousView(sparse, 1, 4, args.dtype);
  args.destination.block_stride = kStride;
  ASSERT_EQ(backend_->EnqueueRealign(lane_, args), absl::OkStatus());
  ASSERT_EQ(Finish(), absl::OkStatus());
  float row[4];
  std::memcpy(row, memory, sizeof(row));
  EXPECT_EQ(row[0], 1);
  EXPECT_EQ(row[3], 4);
  std::memcpy(row, static_cast<char*>(memory) + kStride, sizeof(row));
  EXPECT_EQ(row[0], -7);
  EXPECT_EQ(row[1], -8);
  EXPECT_EQ(row[2], 5);
  EXPECT_EQ(row[3], 6);
  *registered = Buffer();
  munmap(memory, kBytes);
}

TEST_P(BackendRealignTest, UnsupportedIsNotFailed) {
  RealignArgs args;
  args.heads = 1;
  args.width = 4;
  for (const Codec codec : {Codec::kRaw, Codec::kFp8E4m3, Codec::kInt8}) {
    args.codec = codec;
    EXPECT_EQ(backend_->SupportsRealign(args), absl::OkStatus());
  }
  args.codec = static_cast<Codec>(7);
  const absl::Status unknown = backend_->SupportsRealign(args);
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(unknown.message().find("codec 7"), absl::string_view::npos) << unknown;
  EXPECT_NE(unknown.message().find("raw, fp8_e4m3, int8"), absl::string_view::npos) << unknown;
  EXPECT_EQ(backend_->EnqueueRealign(lane_, args).code(), absl::StatusCode::kUnimplemented);
  args.codec = Codec::kRaw;
  args.dtype = static_cast<Dtype>(9);
  const absl::Status status = backend_->EnqueueRealign(lane_, args);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("dtype 9"), absl::string_view::npos) << status;
  args.dtype = Dtype::kFloat32;
  args.width = kMaxWidth + 1;
  EXPECT_EQ(backend_->SupportsRealign(args).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(Finish(), absl::OkStatus());
}

// A bad row in host memory is refused at once; in device memory at once or in the event.
TEST_P(BackendRealignTest, BadRowsAreRefused) {
  RealignShape shape;
  shape.tokens = 20;
  const RealignProblem problem(shape);
  const Buffer source = Upload(problem.source());
  const Buffer destination = Upload(problem.blank());
  const Buffer angles = Upload(problem.angles());
  std::vector<RealignRow> rows = problem.rows();
  rows[5].angle_row = 20;
  RealignArgs args =
      problem.Args(source.span(), HostSpan(rows.data(), 20), angles.span(), destination.span());
  const absl::Status status = backend_->EnqueueRealign(lane_, args);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("rows[5].angle_row"), absl::string_view::npos) << status;
  EXPECT_EQ(Finish(), absl::OkStatus());
  const Buffer device_rows = Upload(rows);
  args.rows = device_rows.span();
  absl::Status late = backend_->EnqueueRealign(lane_, args);
  if (late.ok()) late = Finish();
  EXPECT_EQ(late.code(), absl::StatusCode::kInvalidArgument);
}

SEMSHARE_INSTANTIATE_BACKENDS(BackendRealignTest);

}  // namespace
}  // namespace semshare
