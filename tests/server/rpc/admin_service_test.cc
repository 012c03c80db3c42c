// Shadow checks over real sockets: reported to CacheBroker, seen and forgotten through CacheAdmin.
#include <grpcpp/grpcpp.h>

#include <cmath>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "semshare/v1/cache_admin.grpc.pb.h"
#include "semshare/v1/cache_broker.grpc.pb.h"
#include "server/rpc/rpc_server.h"
#include "tests/server/broker_harness.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;

class ShadowRpcTest : public ::testing::Test {
 protected:
  ShadowRpcTest() : harness_(BackendCases()[0]) {
    EXPECT_TRUE(harness_.RegisterModel().ok());
    Broker* broker = harness_.broker.get();
    staging_ = *StagingPool::Create(broker->backend(), 1,
                                    broker->options().limits.max_frame_payload_bytes);
    executor_ = std::make_unique<Executor>(1, 16);
    server_ = *RpcServer::Start({"127.0.0.1:0", ""}, broker, executor_.get(), staging_.get());
    const auto channel =
        grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    stub_ = v1::CacheBroker::NewStub(channel);
    admin_ = v1::CacheAdmin::NewStub(channel);
  }
  ~ShadowRpcTest() override {
    server_->Shutdown(absl::Seconds(1));
    executor_ = nullptr;
  }

  v1::ReportShadowCheckRequest Check(double kl, bool same_token) const {
    v1::ReportShadowCheckRequest request;
    request.set_model(harness_.engine.fingerprint());
    request.set_kind(v1::RESULT_KIND_EDITED);
    request.set_preset(v1::PRESET_FAST);
    request.set_kl_first(kl);
    request.set_same_token(same_token);
    return request;
  }
  grpc::Status Report(const v1::ReportShadowCheckRequest& request, bool* disabled = nullptr) {
    grpc::ClientContext context;
    v1::ReportShadowCheckResponse response;
    const grpc::Status status = stub_->ReportShadowCheck(&context, request, &response);
    if (disabled != nullptr) *disabled = response.disabled();
    return status;
  }
  v1::ShadowStatsResponse Stats() {
    grpc::ClientContext context;
    v1::ShadowStatsResponse stats;
    EXPECT_TRUE(admin_->ShadowStats(&context, {}, &stats).ok());
    return stats;
  }
  grpc::Status Reset(uint32_t kind, uint32_t* entries = nullptr) {
    grpc::ClientContext context;
    v1::ResetShadowRequest request;
    request.set_kind(kind);
    v1::ResetShadowResponse response;
    const grpc::Status status = admin_->ResetShadow(&context, request, &response);
    if (entries != nullptr) *entries = response.entries();
    return status;
  }

  BrokerHarness harness_;
  std::unique_ptr<StagingPool> staging_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::CacheBroker::Stub> stub_;
  std::unique_ptr<v1::CacheAdmin::Stub> admin_;
};

TEST_F(ShadowRpcTest, ChecksAreReportedShownAndForgotten) {
  bool disabled = false;
  for (int i = 0; i < 8; ++i) {
    EXPECT_FALSE(disabled) << i;
    ASSERT_TRUE(Report(Check(i == 3 ? 1.0 : 0.25, i % 2 == 0), &disabled).ok());
  }
  EXPECT_TRUE(disabled);
  v1::ShadowStatsResponse stats = Stats();
  ASSERT_EQ(stats.entries_size(), 1);
  const v1::ShadowStatsResponse::Entry& entry = stats.entries(0);
  EXPECT_EQ(entry.model(), harness_.engine.fingerprint());
  EXPECT_EQ(entry.kind(), static_cast<uint32_t>(v1::RESULT_KIND_EDITED));
  EXPECT_EQ(entry.checks(), 8U);
  EXPECT_EQ(entry.window(), 8U);
  EXPECT_EQ(entry.mean_kl(), 2.75 / 8);
  EXPECT_EQ(entry.largest_kl(), 1);
  EXPECT_EQ(entry.agreement(), 0.5);
  EXPECT_TRUE(entry.disabled());
  EXPECT_EQ(entry.disabled_until_unix_ms(),
            harness_.now_ms + harness_.broker->options().shadow.disable_ms);
  uint32_t forgotten = 9;
  ASSERT_TRUE(Reset(v1::RESULT_KIND_SHIFTED, &forgotten).ok());
  EXPECT_EQ(forgotten, 0U);
  ASSERT_TRUE(Reset(0, &forgotten).ok());
  EXPECT_EQ(forgotten, 1U);
  EXPECT_EQ(Stats().entries_size(), 0);
}

TEST_F(ShadowRpcTest, WrongArgumentsAreNamed) {
  const auto expect = [](const grpc::Status& status, grpc::StatusCode code, const char* text) {
    EXPECT_EQ(status.error_code(), code) << text;
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  };
  v1::ReportShadowCheckRequest request = Check(0, true);
  request.set_model(std::string(32, 'x'));
  expect(Report(request), grpc::StatusCode::NOT_FOUND, "model");
  for (const int kind : {0, 6, 7, 8}) {
    request = Check(0, true);
    request.set_kind(static_cast<v1::ResultKind>(kind));
    expect(Report(request), grpc::StatusCode::INVALID_ARGUMENT, "kind");
  }
  request = Check(0, true);
  request.set_preset(static_cast<v1::Preset>(v1::Preset_MAX + 1));
  expect(Report(request), grpc::StatusCode::INVALID_ARGUMENT, "preset");
  expect(Report(Check(NAN, true)), grpc::StatusCode::INVALID_ARGUMENT, "kl_first");
  expect(Report(Check(-0.1, true)), grpc::StatusCode::INVALID_ARGUMENT, "kl_first");
  expect(Reset(v1::RESULT_KIND_MISS), grpc::StatusCode::INVALID_ARGUMENT, "kind");
  expect(Reset(8), grpc::StatusCode::INVALID_ARGUMENT, "kind");
  expect(Reset(UINT32_MAX), grpc::StatusCode::INVALID_ARGUMENT, "kind");
  EXPECT_EQ(Stats().entries_size(), 0);
}

}  // namespace
}  // namespace semshare::testing
