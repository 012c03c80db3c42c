#include <gtest/gtest.h>

#include "kernels/backend.h"

namespace semshare {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

bool Valid(void (*change)(CudaBackendOptions&)) {
  CudaBackendOptions options;
  change(options);
  const absl::Status status = options.Validate();
  EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument);
  return status.ok();
}

TEST(CudaBackendOptionsTest, Limits) {
  EXPECT_TRUE(Valid([](CudaBackendOptions&) {}));
  EXPECT_TRUE(Valid([](CudaBackendOptions& options) { options.device = 63; }));
  EXPECT_FALSE(Valid([](CudaBackendOptions& options) { options.device = 64; }));
  EXPECT_FALSE(Valid([](CudaBackendOptions& options) { options.device = -1; }));
  EXPECT_TRUE(Valid([](CudaBackendOptions& options) { options.lanes = 256; }));
  EXPECT_FALSE(Valid([](CudaBackendOptions& options) { options.lanes = 257; }));
  EXPECT_FALSE(Valid([](CudaBackendOptions& options) { options.lanes = 0; }));
  EXPECT_TRUE(Valid([](CudaBackendOptions& options) { options.staging_bytes = kMiB; }));
  EXPECT_FALSE(Valid([](CudaBackendOptions& options) { options.staging_bytes = kMiB - 1; }));
  EXPECT_TRUE(Valid([](CudaBackendOptions& options) { options.scratch_bytes = 1024 * kMiB; }));
  EXPECT_FALSE(Valid([](CudaBackendOptions& options) { options.scratch_bytes = 1024 * kMiB + 1; }));
  EXPECT_FALSE(Valid([](CudaBackendOptions& options) { options.cublas_library = ""; }));
}

TEST(NewCudaBackendTest, BadOptionsAreRefusedBeforeAnythingElse) {
  CudaBackendOptions options;
  options.lanes = 0;
  EXPECT_EQ(NewCudaBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
}

// With a device, without one, and in a build without CUDA: a backend or the reason.
TEST(NewCudaBackendTest, GivesABackendOrSaysWhyNot) {
  CudaBackendOptions options;
  options.lanes = 1;
  options.staging_bytes = options.scratch_bytes = kMiB;
  const absl::StatusOr<std::unique_ptr<Backend>> backend = NewCudaBackend(options);
  if (backend.ok()) {
    EXPECT_EQ((*backend)->info().name, "cuda");
    return;
  }
  const absl::Status& status = backend.status();
  EXPECT_TRUE(status.code() == absl::StatusCode::kFailedPrecondition ||
              status.code() == absl::StatusCode::kUnimplemented)
      << status;
  EXPECT_NE(status.message().find("CUDA"), absl::string_view::npos) << status;
}

TEST(NewCudaBackendTest, ADeviceThatIsNotThereIsNamed) {
  CudaBackendOptions options;
  options.device = 63;
  const absl::Status status = NewCudaBackend(options).status();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("CUDA"), absl::string_view::npos) << status;
}

}  // namespace
}  // namespace semshare
