#include "server/ops/options.h"

#include "gtest/gtest.h"

namespace semshare {
namespace {

TEST(OptionsTest, DefaultsAreValid) { EXPECT_TRUE(ServerOptions().Validate().ok()); }

TEST(OptionsTest, OnlyLoopbackIsListenedOn) {
  for (const char* address : {"0.0.0.0:1", "10.1.2.3:7700", "example.org:1", "127.0.0.1", ":1"}) {
    ServerOptions options;
    options.listen = address;
    EXPECT_TRUE(absl::IsInvalidArgument(options.Validate())) << address;
    options = ServerOptions();
    options.metrics_listen = address;
    EXPECT_TRUE(absl::IsInvalidArgument(options.Validate())) << address;
  }
  for (const char* address : {"127.0.0.1:0", "localhost:1", "[::1]:1", "127.9.9.9:1"}) {
    ServerOptions options;
    options.listen = address;
    EXPECT_TRUE(options.Validate().ok()) << address;
  }
}

TEST(OptionsTest, LimitsAreChecked) {
  const auto bad = [](auto edit) {
    ServerOptions options;
    edit(&options);
    return absl::IsInvalidArgument(options.Validate());
  };
  EXPECT_TRUE(bad([](ServerOptions* o) { o->backend = "tpu"; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->cuda_device = -1; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->cuda_device = 64; }));
  EXPECT_FALSE(bad([](ServerOptions* o) { o->cuda_device = 63; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->cuda_staging_bytes = (1 << 20) - 1; }));
  EXPECT_FALSE(bad([](ServerOptions* o) { o->cuda_staging_bytes = 1 << 30; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->cuda_staging_bytes = (1 << 30) + 1; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->lanes = 0; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->lanes = 257; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->data_dir.clear(); }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->broker.chunks.device_memory_bytes = 1; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->broker.default_kl_target = 0; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->broker.minimum_coverage = 1.5; }));
  EXPECT_TRUE(bad([](ServerOptions* o) { o->broker.limits.max_frame_payload_bytes = 3 << 20; }));
}

}  // namespace
}  // namespace semshare
