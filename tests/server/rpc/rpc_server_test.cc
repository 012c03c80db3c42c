// The service over real sockets, through the generated stub that any client has.
#include "server/rpc/rpc_server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "semshare/v1/cache_admin.grpc.pb.h"
#include "semshare/v1/cache_broker.grpc.pb.h"
#include "tests/server/broker_harness.h"
#include "tests/server/rpc/contract_engine.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;

class RpcServerTest : public ::testing::Test {
 protected:
  RpcServerTest() : spec_(ContractSpec(engine_)) {
    backend_ = *NewCpuBackend({.lanes = 4});
    BrokerOptions options = BrokerHarness::DefaultOptions();
    options.limits.max_leases = 64;
    std::vector<std::string> warnings;
    broker_ = *Broker::Create(
        options, backend_.get(), &disk_, ContractModelParser(options.limits),
        [this] { return now_ms_.load(); }, &warnings);
    staging_ = *StagingPool::Create(backend_.get(), 2, options.limits.max_frame_payload_bytes);
    executor_ = std::make_unique<Executor>(2, 64);
    server_ = *RpcServer::Start({"127.0.0.1:0", "127.0.0.1:1"}, broker_.get(), executor_.get(),
                                staging_.get());
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    stub_ = v1::CacheBroker::NewStub(channel_);
    admin_ = v1::CacheAdmin::NewStub(channel_);
  }
  ~RpcServerTest() override {
    server_->Shutdown(absl::Seconds(1));
    executor_ = nullptr;
  }

  grpc::Status Register(const v1::ModelSpec& spec, const ModelRegistration& registration) {
    grpc::ClientContext context;
    v1::RegisterModelResponse response;
    auto stream = stub_->RegisterModel(&context, &response);
    v1::RegisterModelFrame frame;
    *frame.mutable_spec() = spec;
    stream->Write(frame);
    const std::string table(reinterpret_cast<const char*>(registration.table.data()),
                            registration.table.size() * sizeof(float));
    for (size_t at = 0; at < table.size(); at += 10000) {
      frame.set_embedding_table(table.substr(at, 10000));
      stream->Write(frame);
    }
    for (const ProbeSample& sample : registration.probe) {
      frame.mutable_probe()->set_token_id(sample.token_id);
      frame.mutable_probe()->set_position(static_cast<uint32_t>(sample.position));
      frame.mutable_probe()->set_rows(sample.rows);
      stream->Write(frame);
    }
    stream->WritesDone();
    return stream->Finish();
  }
  grpc::Status Register() { return Register(spec_, engine_.Registration()); }

  v1::BeginPutResponse Begin(const Ids& ids) {
    grpc::ClientContext context;
    v1::BeginPutRequest request;
    request.set_model(spec_.fingerprint());
    for (const uint32_t id : ids) request.add_token_ids(id);
    v1::BeginPutResponse response;
    EXPECT_TRUE(stub_->BeginPut(&context, request, &response).ok());
    return response;
  }

  // All frames of a put; `frames` limits how many are sent, then the call is cancelled.
  grpc::Status Write(const Ids& ids, const v1::BeginPutResponse& begun, int frames = 1 << 20) {
    grpc::ClientContext context;
    v1::WriteKvResponse response;
    auto stream = stub_->WriteKv(&context, &response);
    for (int layer = 0; layer < TinyEngine::kLayers; ++layer) {
      for (int plane = 0; plane < 2; ++plane) {
        if (frames-- == 0) {
          context.TryCancel();
          return stream->Finish();
        }
        std::vector<int64_t> positions(ids.size());
        for (size_t i = 0; i < ids.size(); ++i) positions[i] = static_cast<int64_t>(i);
        const std::vector<float> rows = engine_.Rows(layer, plane, ids, positions);
        v1::WriteKvFrame frame;
        if (layer == 0 && plane == 0) frame.set_upload_id(begun.upload_id());
        frame.set_exact(true);
        frame.set_layer(layer);
        frame.set_plane(plane);
        frame.set_tokens(static_cast<uint32_t>(ids.size()));
        frame.set_payload(rows.data(), rows.size() * sizeof(float));
        frame.set_commit(layer + 1 == TinyEngine::kLayers && plane == 1);
        stream->Write(frame);
      }
    }
    stream->WritesDone();
    const grpc::Status status = stream->Finish();
    EXPECT_TRUE(!status.ok() || (response.visible() && response.durable()));
    if (status.ok()) committed_.push_back(ids);
    return status;
  }

  v1::FindMatchResponse Find(const Ids& ids) {
    grpc::ClientContext context;
    v1::FindMatchRequest request;
    request.set_model(spec_.fingerprint());
    for (const uint32_t id : ids) request.add_token_ids(id);
    v1::FindMatchResponse response;
    EXPECT_TRUE(stub_->FindMatch(&context, request, &response).ok());
    return response;
  }

  // Rows of (layer 2, plane k) of a match; checks the order of all frames.
  grpc::Status Read(const std::string& lease, std::vector<float>* k_rows, uint32_t frame_bytes) {
    grpc::ClientContext context;
    v1::ReadKvRequest request;
    request.set_lease_id(lease);
    request.set_max_frame_payload_bytes(frame_bytes);
    auto stream = stub_->ReadKv(&context, request);
    v1::ReadKvFrame frame;
    uint64_t last = 0;
    while (stream->Read(&frame)) {
      const uint64_t place =
          (uint64_t{frame.layer()} * 2 + frame.plane()) << 32 | frame.first_row();
      EXPECT_GE(place, last);
      last = place;
      if (frame.layer() != 2 || frame.plane() != 0) continue;
      const size_t at = k_rows->size();
      k_rows->resize(at + frame.payload().size() / sizeof(float));
      std::copy(frame.payload().begin(), frame.payload().end(),
                reinterpret_cast<char*>(k_rows->data() + at));
    }
    return stream->Finish();
  }

  // The same, as often as there is no quota: one comes back as soon as its cancelled call has ended
  // on the server, whenever that is.
  grpc::Status ReadWhenFree(const std::string& lease, std::vector<float>* k_rows) {
    grpc::Status status;
    do {
      k_rows->clear();
      status = Read(lease, k_rows, 0);
    } while (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    return status;
  }

  // Every prompt that was committed is found as a prefix, and its rows are the engine's.
  void ExpectCommittedIntact() {
    for (const Ids& ids : committed_) {
      const v1::FindMatchResponse found = Find(ids);
      ASSERT_TRUE(found.has_match()) << found.ShortDebugString();
      ASSERT_EQ(found.match().kind(), v1::RESULT_KIND_EXACT_PREFIX);
      std::vector<float> rows;
      const grpc::Status read = ReadWhenFree(found.match().lease_id(), &rows);
      ASSERT_TRUE(read.ok()) << read.error_message();
      const size_t tokens = found.match().segments(0).tokens();
      ASSERT_GE(tokens, ids.size() - 20);
      std::vector<int64_t> positions(tokens);
      for (size_t i = 0; i < tokens; ++i) positions[i] = static_cast<int64_t>(i);
      const Ids prefix(ids.begin(), ids.begin() + static_cast<int64_t>(tokens));
      EXPECT_EQ(rows, engine_.Rows(2, 0, prefix, positions));
    }
  }

  // What grpc.health.v1 says of a service: 1 is SERVING, 2 NOT_SERVING.
  int Health(const std::string& service) {
    // Field 1 of the request is a string, of the response an enum.
    const std::string bytes = std::string("\x0a") + static_cast<char>(service.size()) + service;
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::ClientContext context;
    const grpc::internal::RpcMethod method("/grpc.health.v1.Health/Check",
                                           grpc::internal::RpcMethod::NORMAL_RPC);
    EXPECT_TRUE(
        grpc::internal::BlockingUnaryCall(channel_.get(), method, &context, request, &response)
            .ok());
    std::vector<grpc::Slice> slices;
    EXPECT_TRUE(response.Dump(&slices).ok());
    return slices.empty() || slices[0].size() != 2 ? 0 : slices[0].begin()[1];
  }

  const TinyEngine engine_{7};
  const v1::ModelSpec spec_;
  std::atomic<int64_t> now_ms_{1000};
  std::vector<Ids> committed_;
  MemoryDiskTier disk_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Broker> broker_;
  std::unique_ptr<StagingPool> staging_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::CacheBroker::Stub> stub_;
  std::unique_ptr<v1::CacheAdmin::Stub> admin_;
  const Ids document_ = RandomIds(500, 1);
};

TEST_F(RpcServerTest, PutFindReadThroughAPlainStub) {
  ASSERT_TRUE(Register().ok());
  ASSERT_TRUE(Write(document_, Begin(document_)).ok());
  Ids target = RandomIds(70, 2);
  target.insert(target.end(), document_.begin(), document_.end());
  const v1::FindMatchResponse found = Find(target);
  ASSERT_TRUE(found.has_match()) << found.ShortDebugString();
  EXPECT_EQ(found.match().kind(), v1::RESULT_KIND_SHIFTED);
  for (const uint32_t frame_bytes : {0u, 1000u}) {
    std::vector<float> rows;
    ASSERT_TRUE(Read(found.match().lease_id(), &rows, frame_bytes).ok());
    Ids ids;
    std::vector<int64_t> positions;
    for (const v1::Segment& segment : found.match().segments()) {
      for (uint32_t i = 0; i < segment.tokens(); ++i) {
        ids.push_back(target[segment.target_begin() + i]);
        positions.push_back(segment.target_begin() + i);
      }
    }
    const std::vector<float> expected = engine_.Rows(2, 0, ids, positions);
    ASSERT_EQ(rows.size(), expected.size());
    for (size_t i = 0; i < rows.size(); ++i) ASSERT_NEAR(rows[i], expected[i], 2e-6) << i;
  }
}

TEST_F(RpcServerTest, ManyReadersShareFewQuotas) {
  ASSERT_TRUE(Register().ok());
  ASSERT_TRUE(Write(document_, Begin(document_)).ok());
  const std::string lease = Find(document_).match().lease_id();
  std::atomic<int> finished{0};
  std::atomic<int> refused{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([&] {
      for (int round = 0; round < 5; ++round) {
        std::vector<float> rows;
        const grpc::Status status = Read(lease, &rows, 2000);
        finished += status.ok() ? 1 : 0;
        refused += status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED ? 1 : 0;
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(finished + refused, 40);
  EXPECT_GT(finished, 0);
}

TEST_F(RpcServerTest, ClientThatVanishesMidPutLeavesNothing) {
  ASSERT_TRUE(Register().ok());
  EXPECT_FALSE(Write(document_, Begin(document_), 3).ok());
  EXPECT_TRUE(Find(document_).has_no_match());
  // The upload's memory comes back, and the same put works.
  EXPECT_TRUE(Write(document_, Begin(document_)).ok());
  ExpectCommittedIntact();
}

TEST_F(RpcServerTest, ClientThatVanishesMidReadCostsNothing) {
  ASSERT_TRUE(Register().ok());
  ASSERT_TRUE(Write(document_, Begin(document_)).ok());
  const std::string lease = Find(document_).match().lease_id();
  for (int i = 0; i < 20; ++i) {  // far more than there are quotas
    grpc::ClientContext context;
    v1::ReadKvRequest request;
    request.set_lease_id(lease);
    request.set_max_frame_payload_bytes(4096);
    auto stream = stub_->ReadKv(&context, request);
    v1::ReadKvFrame frame;
    stream->Read(&frame);
    context.TryCancel();
    EXPECT_FALSE(stream->Finish().ok());
  }
  std::vector<float> rows;
  const grpc::Status status = ReadWhenFree(lease, &rows);
  EXPECT_TRUE(status.ok()) << status.error_message();
  ExpectCommittedIntact();
}

TEST_F(RpcServerTest, AnExpiredLeaseIsAborted) {
  ASSERT_TRUE(Register().ok());
  ASSERT_TRUE(Write(document_, Begin(document_)).ok());
  const std::string lease = Find(document_).match().lease_id();
  now_ms_ += broker_->options().lease_timeout_ms;
  std::vector<float> rows;
  EXPECT_TRUE(Read(lease, &rows, 0).ok());  // and starts the time anew
  now_ms_ += broker_->options().lease_timeout_ms + 1;
  const grpc::Status status = Read(lease, &rows, 0);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(status.error_message(), HasSubstr("lease_id"));
  grpc::ClientContext context;
  v1::ReleaseMatchRequest request;
  request.set_lease_id(lease);
  v1::ReleaseMatchResponse response;
  EXPECT_EQ(stub_->ReleaseMatch(&context, request, &response).error_code(),
            grpc::StatusCode::ABORTED);
  ExpectCommittedIntact();
}

TEST_F(RpcServerTest, LeasesEnd) {
  ASSERT_TRUE(Register().ok());
  ASSERT_TRUE(Write(document_, Begin(document_)).ok());
  const std::string lease = Find(document_).match().lease_id();
  for (int i = 0; i < 2; ++i) {
    grpc::ClientContext context;
    v1::ReleaseMatchRequest request;
    request.set_lease_id(lease);
    v1::ReleaseMatchResponse response;
    EXPECT_TRUE(stub_->ReleaseMatch(&context, request, &response).ok());
  }
  std::vector<float> rows;
  EXPECT_EQ(Read(lease, &rows, 0).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Read("no such lease", &rows, 0).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RpcServerTest, BadStreamsNameTheFault) {
  EXPECT_EQ(Register(v1::ModelSpec(), engine_.Registration()).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Register(spec_, engine_.LyingRegistration()).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  ModelRegistration short_table = engine_.Registration();
  short_table.table.pop_back();
  EXPECT_EQ(Register(spec_, short_table).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_TRUE(Register().ok());
  const Ids before = RandomIds(200, 3);
  ASSERT_TRUE(Write(before, Begin(before)).ok());
  v1::BeginPutResponse nobody;
  nobody.set_upload_id("0123456789abcdef");
  EXPECT_EQ(Write(document_, nobody).error_code(), grpc::StatusCode::NOT_FOUND);

  grpc::ClientContext context;
  v1::WriteKvResponse response;
  auto stream = stub_->WriteKv(&context, &response);
  v1::WriteKvFrame frame;
  frame.set_upload_id(Begin(document_).upload_id());
  frame.set_exact(true);
  frame.set_layer(1);
  frame.set_tokens(1);
  frame.set_payload(std::string(128, 'x'));
  stream->Write(frame);
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("layer"));
  EXPECT_EQ(Register(spec_, engine_.LyingRegistration()).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  ExpectCommittedIntact();
}

TEST_F(RpcServerTest, ProbeSamplesUpToTheLimit) {
  ModelRegistration registration = engine_.Registration();
  const auto limit = static_cast<size_t>(broker_->options().limits.max_probe_samples);
  ASSERT_LT(registration.probe.size(), limit);
  while (registration.probe.size() <= limit) registration.probe.push_back(registration.probe[0]);
  const grpc::Status status = Register(spec_, registration);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("probe"));
  registration.probe.pop_back();
  EXPECT_TRUE(Register(spec_, registration).ok());
}

TEST_F(RpcServerTest, WhatIsFullSaysWhenToTryAgain) {
  ASSERT_TRUE(Register().ok());
  for (int i = 0; i < broker_->options().limits.max_uploads; ++i) Begin(RandomIds(100, 50 + i));
  grpc::ClientContext context;
  v1::BeginPutRequest request;
  request.set_model(spec_.fingerprint());
  for (const uint32_t id : document_) request.add_token_ids(id);
  v1::BeginPutResponse response;
  const grpc::Status status = stub_->BeginPut(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_details(), HasSubstr("google.rpc.RetryInfo"));
}

TEST_F(RpcServerTest, ListPagesUpToTheLimit) {
  for (const int above : {0, 1}) {
    grpc::ClientContext context;
    v1::ListRequest request;
    request.set_page_size(static_cast<uint32_t>(broker_->options().limits.max_list_page + above));
    v1::ListResponse response;
    const grpc::Status status = admin_->List(&context, request, &response);
    EXPECT_EQ(status.error_code(),
              above == 0 ? grpc::StatusCode::OK : grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(RpcServerTest, TransportsThatAreNotBuiltAreRefused) {
  grpc::ClientContext context;
  v1::ReadKvRequest request;
  request.set_transport(v1::TRANSPORT_CUDA_IPC);
  auto stream = stub_->ReadKv(&context, request);
  v1::ReadKvFrame frame;
  EXPECT_FALSE(stream->Read(&frame));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(RpcServerTest, AdministrationListsPinsAndDeletes) {
  ASSERT_TRUE(Register().ok());
  for (int i = 0; i < 5; ++i) {
    const Ids ids = RandomIds(100, 10 + i);
    ASSERT_TRUE(Write(ids, Begin(ids)).ok());
  }
  v1::ListRequest list;
  list.set_page_size(2);
  std::vector<std::string> seen;
  do {
    grpc::ClientContext context;
    v1::ListResponse page;
    ASSERT_TRUE(admin_->List(&context, list, &page).ok());
    for (const auto& reference : page.references()) seen.push_back(reference.reference_id());
    list.set_page_token(page.next_page_token());
  } while (!list.page_token().empty());
  EXPECT_EQ(seen.size(), 5u);
  {
    grpc::ClientContext context;
    v1::DeleteRequest request;
    request.mutable_reference()->set_reference_id(seen[0]);
    v1::DeleteResponse response;
    EXPECT_TRUE(admin_->Delete(&context, request, &response).ok());
  }
  grpc::ClientContext context;
  v1::StatsResponse stats;
  ASSERT_TRUE(admin_->Stats(&context, {}, &stats).ok());
  EXPECT_EQ(stats.references(), 4u);
  EXPECT_EQ(stats.models(), 1u);
}

TEST_F(RpcServerTest, ServerInfoAndAddressFileAgree) {
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(stub_->GetServerInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.grpc_address(), server_->address());
  EXPECT_EQ(info.chunk_tokens(), 64u);
  EXPECT_THAT(server_->AddressFile(), HasSubstr("{\"grpc\":\"" + server_->address() + "\""));
  EXPECT_THAT(server_->AddressFile(), HasSubstr("\"metrics\":\"127.0.0.1:1\""));
}

TEST_F(RpcServerTest, DrainTurnsNewWorkAwayAndHealthSaysSo) {
  ASSERT_TRUE(Register().ok());
  const std::string services[] = {"", "semshare.v1.CacheBroker", "semshare.v1.CacheAdmin"};
  for (const std::string& service : services) EXPECT_EQ(Health(service), 1) << service;
  grpc::ClientContext context;
  v1::DrainResponse drained;
  ASSERT_TRUE(admin_->Drain(&context, {}, &drained).ok());
  for (const std::string& service : services) EXPECT_EQ(Health(service), 2) << service;
  grpc::ClientContext find_context;
  v1::FindMatchRequest request;
  request.set_model(spec_.fingerprint());
  request.add_token_ids(1);
  v1::FindMatchResponse response;
  EXPECT_EQ(stub_->FindMatch(&find_context, request, &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace semshare::testing
