// Puts and reads through memory of a GPU that the worker exports, played by the late backend: the
// host cannot touch what the broker maps, work on it before the worker's event stops the process,
// and so does work that is still pending when it is unmapped.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/rpc/region_fixture.h"
#include "tests/testing/late_backend.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;

class CudaIpcTest : public RegionStreamTest {
 protected:
  CudaIpcTest() {
    shared_handle_ = handle_;
    handle_ = *connection_->Register(late()->ExportPeerMemory(memory_.fd()));
    transport_ = v1::TRANSPORT_CUDA_IPC;
  }

  LateBackend* late() const { return static_cast<LateBackend*>(backend_.get()); }
  bool Untouched() const {
    const float* values = memory_.as<float>();
    return std::all_of(values, values + kLayers * 2 * kMaxTokens * kRowFloats,
                       [](float value) { return value == 0; });
  }
  // Until a lane waits for the worker's event, or `ended`.
  void AwaitWait(const std::atomic<bool>& ended) const {
    while (late()->peer_waits() == 0 && !ended) std::this_thread::yield();
  }

  std::string shared_handle_;  // of the same memory, as shared memory
};

TEST_P(CudaIpcTest, PutAndReadMoveNoPayload) { ExpectNoPayload(); }

// A paged cache that begins within the allocation, as an engine's KV tensor does.
TEST_P(CudaIpcTest, ReadsIntoPagesBehindAnOffset) {
  Put(document_);
  const Ids target = Shifted();
  const v1::Match match = Find(target);
  Clear();
  PeerMemoryHandle part = late()->ExportPeerMemory(memory_.fd());
  part.offset = 4096;
  part.bytes -= 4096;
  v1::ReadKvRequest request = ReadRequest(match);
  request.set_layer_end(1);
  v1::KvView* view = request.mutable_target();
  view->set_region(*connection_->Register(part));
  constexpr int kBlock = 16;
  constexpr int kBlocks = 37;
  constexpr int64_t kPoolBytes = int64_t{kBlock} * kBlocks * kRowBytes;
  while (view->planes_size() > 2) view->mutable_planes()->RemoveLast();
  for (int plane = 0; plane < 2; ++plane) {
    view->mutable_planes(plane)->set_offset(static_cast<uint64_t>(plane * kPoolBytes));
    view->mutable_planes(plane)->set_bytes(kPoolBytes);
    view->mutable_planes(plane)->set_block_tokens(kBlock);
    view->mutable_planes(plane)->set_block_stride(kBlock * kRowBytes);
    view->mutable_planes(plane)->set_token_stride(kRowBytes);
  }
  const auto slot = [](int64_t t) { return t / kBlock * 13 % kBlocks * kBlock + t % kBlock; };
  for (int64_t t = 0; t < static_cast<int64_t>(target.size()); ++t) view->add_slots(slot(t));
  int last_layer;
  const grpc::Status status = Read(request, &last_layer);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const v1::Segment& segment = match.segments(0);
  for (uint32_t t = segment.target_begin(); t < segment.target_begin() + segment.tokens(); ++t) {
    for (int plane = 0; plane < 2; ++plane) {
      const std::vector<float> expected = engine_.Rows(0, plane, {target[t]}, {t});
      const float* row =
          memory_.as<float>() + (4096 + plane * kPoolBytes + slot(t) * kRowBytes) / 4;
      for (int64_t i = 0; i < kRowFloats; ++i) ASSERT_NEAR(row[i], expected[i], 2e-6) << t;
    }
  }
}

TEST_P(CudaIpcTest, NothingIsWrittenBeforeTheWorkersEvent) {
  Put(document_);
  Clear();
  const Ids target = Shifted();
  const v1::Match match = Find(target);
  late()->HoldPeerEvent();
  std::atomic<bool> ended{false};
  int last_layer = -1;
  std::thread reading([&] {
    EXPECT_TRUE(Read(ReadRequest(match), &last_layer).ok());
    ended = true;
  });
  AwaitWait(ended);
  EXPECT_FALSE(ended);
  EXPECT_TRUE(Untouched());
  late()->ReleasePeerEvent();
  reading.join();
  EXPECT_EQ(last_layer, kLayers - 1);
  ExpectRows(match, target);
}

// Each frame says that more is ready, so each waits for the event again.
TEST_P(CudaIpcTest, NothingIsTakenBeforeTheWorkersEvent) {
  FillMemory(document_);
  grpc::ClientContext context;
  v1::WriteKvResponse response;
  auto stream = stub_->WriteKv(&context, &response);
  std::atomic<bool> never{false};
  uint64_t taken = 0;
  for (int layer = 0; layer < kLayers; ++layer) {
    late()->HoldPeerEvent();
    v1::WriteKvFrame frame;
    if (layer == 0) frame = First(Begin(document_), 1);
    frame.set_layers(1);
    frame.set_commit(layer == kLayers - 1);
    ASSERT_TRUE(stream->Write(frame));
    AwaitWait(never);
    EXPECT_EQ(broker_->metrics().put_bytes.load(), taken);
    late()->ReleasePeerEvent();
    taken += 500u * 2 * kRowBytes;
    while (broker_->metrics().put_bytes.load() < taken) std::this_thread::yield();
  }
  EXPECT_TRUE(stream->Finish().ok());
  Clear();
  const Ids target = Shifted();
  const v1::Match match = Find(target);
  int last_layer;
  ASSERT_TRUE(Read(ReadRequest(match), &last_layer).ok());
  ExpectRows(match, target);
}

TEST_P(CudaIpcTest, MemoryIsUnmappedAfterTheLastWorkOfAWorkerThatDied) {
  Put(document_);
  const Ids target = Shifted();
  const v1::Match match = Find(target);
  late()->HoldPeerEvent();
  std::atomic<bool> ended{false};
  std::thread reading([&] {
    int last_layer;
    EXPECT_TRUE(Read(ReadRequest(match), &last_layer).ok());
    ended = true;
  });
  AwaitWait(ended);
  connection_ = nullptr;
  while (broker_->regions()->stats().regions > 0) std::this_thread::yield();
  EXPECT_EQ(late()->open_peers(), 1);
  late()->ReleasePeerEvent();
  reading.join();
  EXPECT_EQ(late()->open_peers(), 0);  // before the end of the call was told
  int last_layer;
  EXPECT_EQ(Read(ReadRequest(match), &last_layer).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_P(CudaIpcTest, AFailedReadLetsGoOfTheMemory) {
  Put(document_);
  const v1::Match match = Find(Shifted());
  int last_layer;
  late()->FailNext(LateOp::kRealign, absl::InternalError("a kernel failed"));
  EXPECT_EQ(Read(ReadRequest(match), &last_layer).error_code(), grpc::StatusCode::INTERNAL);
  connection_->ShutDown();
  EXPECT_EQ(late()->open_peers(), 0);
}

TEST_P(CudaIpcTest, ARegionOfTheOtherTransportIsRefused) {
  Put(document_);
  const v1::Match match = Find(Shifted());
  int last_layer;
  v1::ReadKvRequest request = ReadRequest(match);
  request.set_transport(v1::TRANSPORT_SHARED_MEMORY);
  grpc::Status status = Read(request, &last_layer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("target.region: is memory of a GPU"));
  request = ReadRequest(match);
  request.mutable_target()->set_region(shared_handle_);
  status = Read(request, &last_layer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("target.region: is shared memory"));
}

TEST_P(CudaIpcTest, ViewsBeyondTheRegionAreRefused) {
  Put(document_);
  const v1::Match match = Find(Shifted());
  PeerMemoryHandle part = late()->ExportPeerMemory(memory_.fd());
  part.bytes -= 1;
  v1::ReadKvRequest request = ReadRequest(match);
  request.mutable_target()->set_region(*connection_->Register(part));
  int last_layer;
  const grpc::Status status = Read(request, &last_layer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("target.planes[5]"));
}

TEST_P(CudaIpcTest, IsListed) {
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(stub_->GetServerInfo(&context, {}, &info).ok());
  EXPECT_THAT(info.transports(),
              ::testing::ElementsAre(v1::TRANSPORT_INLINE, v1::TRANSPORT_SHARED_MEMORY,
                                     v1::TRANSPORT_CUDA_IPC));
}

std::vector<BackendCase> LateCase() {
  std::vector<BackendCase> cases = BackendCases();
  cases.erase(std::remove_if(cases.begin(), cases.end(),
                             [](const BackendCase& each) { return each.name != "Late"; }),
              cases.end());
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Backends, CudaIpcTest, ::testing::ValuesIn(LateCase()),
                         [](const auto& info) { return info.param.name; });

// What a broker without a GPU says.
using CpuBrokerTest = RegionStreamTest;

TEST_P(CpuBrokerTest, RefusesCudaIpc) {
  const std::unique_ptr<LateBackend> exporter = NewLateBackend();
  const absl::Status refused =
      connection_->Register(exporter->ExportPeerMemory(memory_.fd())).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("cuda_ipc needs --backend=cuda"));
  v1::ReadKvRequest request;
  request.set_transport(v1::TRANSPORT_CUDA_IPC);
  int last_layer;
  const grpc::Status status = Read(request, &last_layer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("cuda_ipc needs --backend=cuda"));
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(stub_->GetServerInfo(&context, {}, &info).ok());
  EXPECT_THAT(info.transports(),
              ::testing::ElementsAre(v1::TRANSPORT_INLINE, v1::TRANSPORT_SHARED_MEMORY));
}

INSTANTIATE_TEST_SUITE_P(Backends, CpuBrokerTest, ::testing::Values(BackendCases().front()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace semshare::testing
