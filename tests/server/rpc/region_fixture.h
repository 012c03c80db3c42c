// RegionStreamTest: a broker with its service and its unix socket, and a worker whose KV is in one
// region. Not thread-safe.
#ifndef SEMSHARE_TESTS_SERVER_RPC_REGION_FIXTURE_H_
#define SEMSHARE_TESTS_SERVER_RPC_REGION_FIXTURE_H_

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/status_macros.h"
#include "semshare/v1/cache_broker.grpc.pb.h"
#include "server/rpc/convert.h"
#include "server/rpc/rpc_server.h"
#include "server/transport/shm_socket.h"
#include "tests/server/broker_harness.h"
#include "tests/server/rpc/contract_engine.h"
#include "tests/storage/temp_dir.h"
#include "tests/testing/shared_memory.h"

namespace semshare::testing {

using Ids = std::vector<uint32_t>;

inline constexpr int kLayers = TinyEngine::kLayers;
inline constexpr int64_t kRowFloats = TinyEngine::kHeads * TinyEngine::kWidth;
inline constexpr int64_t kRowBytes = kRowFloats * sizeof(float);
inline constexpr int64_t kMaxTokens = 600;
inline constexpr int64_t kPlaneBytes = kMaxTokens * kRowBytes;

class RegionStreamTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  RegionStreamTest() : spec_(ContractSpec(engine_)) {
    backend_ = *GetParam().make();
    const BrokerOptions options = BrokerHarness::DefaultOptions();
    std::vector<std::string> warnings;
    broker_ = *Broker::Create(
        options, backend_.get(), &disk_, ContractModelParser(options.limits),
        [this] { return now_ms_.load(); }, &warnings);
    shm_ = *ShmSocket::Start({dir_.path() + "/shm.sock", kTenant}, broker_->regions());
    staging_ = *StagingPool::Create(backend_.get(), 2, options.limits.max_frame_payload_bytes);
    executor_ = std::make_unique<Executor>(2, 64);
    server_ = *RpcServer::Start({"127.0.0.1:0", "127.0.0.1:1", dir_.path() + "/shm.sock"},
                                broker_.get(), executor_.get(), staging_.get());
    stub_ = v1::CacheBroker::NewStub(
        grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
    ModelRegistration registration = engine_.Registration();
    registration.info = *ToModelInfo(spec_, options.limits);
    SEMSHARE_CHECK(broker_->RegisterModel(kTenant, registration).ok());
    connection_ = std::make_unique<ShmConnection>(dir_.path() + "/shm.sock");
    handle_ = *connection_->Register(memory_);
  }
  ~RegionStreamTest() override {
    server_->Shutdown(absl::Seconds(1));
    executor_ = nullptr;
  }

  // [layer][plane][token][head][width], a token's slot being its position.
  v1::KvView View() const {
    v1::KvView view;
    view.set_region(handle_);
    for (int i = 0; i < kLayers * 2; ++i) {
      v1::PlaneView* plane = view.add_planes();
      plane->set_offset(static_cast<uint64_t>(i * kPlaneBytes));
      plane->set_bytes(kPlaneBytes);
      plane->set_block_stride(kRowBytes);
      plane->set_head_stride(TinyEngine::kWidth * sizeof(float));
      plane->set_element_stride(sizeof(float));
    }
    return view;
  }
  float* Row(int layer, int plane, int64_t token) const {
    return memory_.as<float>() + ((layer * 2 + plane) * kMaxTokens + token) * kRowFloats;
  }
  // What the engine computes for every token at its own position.
  void FillMemory(const Ids& ids) {
    std::vector<int64_t> positions(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) positions[i] = static_cast<int64_t>(i);
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int plane = 0; plane < 2; ++plane) {
        const std::vector<float> rows = engine_.Rows(layer, plane, ids, positions);
        std::copy(rows.begin(), rows.end(), Row(layer, plane, 0));
      }
    }
  }

  v1::BeginPutResponse Begin(const Ids& ids) {
    grpc::ClientContext context;
    v1::BeginPutRequest request;
    request.set_model(spec_.fingerprint());
    request.set_transport(transport_);
    for (const uint32_t id : ids) request.add_token_ids(id);
    v1::BeginPutResponse response;
    EXPECT_TRUE(stub_->BeginPut(&context, request, &response).ok());
    return response;
  }

  using Frames = std::vector<v1::WriteKvFrame>;
  v1::WriteKvFrame First(const v1::BeginPutResponse& begun, uint32_t layers) const {
    v1::WriteKvFrame frame;
    frame.set_upload_id(begun.upload_id());
    frame.set_exact(true);
    *frame.mutable_source() = View();
    frame.set_layers(layers);
    return frame;
  }
  grpc::Status Write(const Frames& frames) {
    grpc::ClientContext context;
    v1::WriteKvResponse response;
    auto stream = stub_->WriteKv(&context, &response);
    for (const v1::WriteKvFrame& frame : frames) stream->Write(frame);
    stream->WritesDone();
    return stream->Finish();
  }
  void Put(const Ids& ids) {
    FillMemory(ids);
    Frames frames = {First(Begin(ids), 1), {}};
    frames[1].set_layers(kLayers - 1);
    frames[1].set_commit(true);
    const grpc::Status status = Write(frames);
    SEMSHARE_CHECK(status.ok());
  }

  v1::Match Find(const Ids& ids) {
    grpc::ClientContext context;
    v1::FindMatchRequest request;
    request.set_model(spec_.fingerprint());
    for (const uint32_t id : ids) request.add_token_ids(id);
    v1::FindMatchResponse response;
    EXPECT_TRUE(stub_->FindMatch(&context, request, &response).ok());
    EXPECT_TRUE(response.has_match()) << response.ShortDebugString();
    return response.match();
  }

  v1::ReadKvRequest ReadRequest(const v1::Match& match) const {
    v1::ReadKvRequest request;
    request.set_lease_id(match.lease_id());
    request.set_transport(transport_);
    *request.mutable_target() = View();
    return request;
  }
  // The last layer that was reported, -1 if none was.
  grpc::Status Read(const v1::ReadKvRequest& request, int* last_layer) {
    grpc::ClientContext context;
    auto stream = stub_->ReadKv(&context, request);
    v1::ReadKvFrame frame;
    *last_layer = -1;
    while (stream->Read(&frame)) {
      EXPECT_GT(static_cast<int>(frame.layer()), *last_layer);
      EXPECT_TRUE(frame.payload().empty());
      *last_layer = static_cast<int>(frame.layer());
    }
    return stream->Finish();
  }

  void ExpectRows(const v1::Match& match, const Ids& target) {
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const v1::Segment& segment : match.segments()) {
        for (uint32_t t = segment.target_begin(); t < segment.target_begin() + segment.tokens();
             ++t) {
          for (int plane = 0; plane < 2; ++plane) {
            const std::vector<float> expected = engine_.Rows(layer, plane, {target[t]}, {t});
            for (int64_t i = 0; i < kRowFloats; ++i) {
              ASSERT_NEAR(Row(layer, plane, t)[i], expected[i], 2e-6) << layer << " " << t;
            }
          }
        }
      }
    }
  }

  void Clear() { std::fill_n(memory_.as<float>(), kLayers * 2 * kMaxTokens * kRowFloats, 0.0F); }

  // The document is put and read behind other tokens: every row arrives, none within a message.
  void ExpectNoPayload() {
    Put(document_);
    Clear();
    const Ids target = Shifted();
    const v1::Match match = Find(target);
    EXPECT_EQ(match.kind(), v1::RESULT_KIND_SHIFTED);
    int last_layer;
    const grpc::Status status = Read(ReadRequest(match), &last_layer);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(last_layer, kLayers - 1);
    ASSERT_NO_FATAL_FAILURE(ExpectRows(match, target));
    EXPECT_EQ(broker_->metrics().put_bytes.load(), 500u * kLayers * 2 * kRowBytes);
    EXPECT_EQ(broker_->metrics().read_bytes.load(),
              uint64_t{match.matched_tokens()} * kLayers * 2 * kRowBytes);
  }

  // A target that holds the document behind 70 other tokens.
  Ids Shifted() const {
    Ids target = RandomIds(70, 2);
    target.insert(target.end(), document_.begin(), document_.end());
    return target;
  }

  const TinyEngine engine_{7};
  const v1::ModelSpec spec_;
  const TempDir dir_;
  const Ids document_ = RandomIds(500, 1);
  std::atomic<int64_t> now_ms_{1000};
  SharedMemory memory_{kLayers * 2 * kPlaneBytes};
  std::string handle_;
  v1::Transport transport_ = v1::TRANSPORT_SHARED_MEMORY;
  MemoryDiskTier disk_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Broker> broker_;
  std::unique_ptr<ShmSocket> shm_;
  std::unique_ptr<StagingPool> staging_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::CacheBroker::Stub> stub_;
  std::unique_ptr<ShmConnection> connection_;
};

}  // namespace semshare::testing

#endif  // SEMSHARE_TESTS_SERVER_RPC_REGION_FIXTURE_H_
