// Puts and reads through shared memory, by the generated stub and the unix socket.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/cpp/client.h"
#include "client/cpp/shared_buffer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/rpc/region_fixture.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;

using RegionReadStreamTest = RegionStreamTest;

TEST_P(RegionReadStreamTest, PutAndReadMoveNoPayload) { ExpectNoPayload(); }

// Only the chunks behind a shared beginning are taken, from their own places in the source.
TEST_P(RegionReadStreamTest, APutTakesWhatIsMissing) {
  Put(document_);
  Ids longer(document_.begin(), document_.begin() + 256);
  const Ids tail = RandomIds(200, 9);
  longer.insert(longer.end(), tail.begin(), tail.end());
  const uint64_t before = broker_->metrics().put_bytes.load();
  Put(longer);
  EXPECT_EQ(broker_->metrics().put_bytes.load() - before, 200u * kLayers * 2 * kRowBytes);
  Ids target = RandomIds(10, 5);
  target.insert(target.end(), longer.begin(), longer.end());
  const v1::Match match = Find(target);
  int last_layer;
  ASSERT_TRUE(Read(ReadRequest(match), &last_layer).ok());
  ExpectRows(match, target);
}

TEST_P(RegionReadStreamTest, RegionsThatAreGoneAreNotFound) {
  Put(document_);
  const v1::Match match = Find(Shifted());
  int last_layer;
  v1::ReadKvRequest request = ReadRequest(match);
  request.mutable_target()->set_region(std::string(16, 'x'));
  EXPECT_EQ(Read(request, &last_layer).error_code(), grpc::StatusCode::NOT_FOUND);
  connection_ = nullptr;
  while (broker_->regions()->stats().regions > 0) std::this_thread::yield();
  EXPECT_EQ(Read(ReadRequest(match), &last_layer).error_code(), grpc::StatusCode::NOT_FOUND);
  const v1::BeginPutResponse begun = Begin(RandomIds(100, 3));
  EXPECT_EQ(Write({First(begun, kLayers)}).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(last_layer, -1);
}

TEST_P(RegionReadStreamTest, BadReadsNameTheField) {
  Put(document_);
  const v1::Match match = Find(Shifted());
  const auto refusal = [&](const v1::ReadKvRequest& request) {
    int last_layer;
    const grpc::Status status = Read(request, &last_layer);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_EQ(last_layer, -1);
    return status.error_message();
  };
  v1::ReadKvRequest request = ReadRequest(match);
  request.mutable_target()->mutable_planes(3)->set_offset(UINT64_MAX);
  EXPECT_THAT(refusal(request), HasSubstr("target.planes[3]"));
  request = ReadRequest(match);
  request.mutable_target()->mutable_planes(5)->set_bytes(kPlaneBytes + 1);
  EXPECT_THAT(refusal(request), HasSubstr("target.planes[5]"));
  request = ReadRequest(match);
  request.mutable_target()->mutable_planes(2)->set_block_stride(INT64_MAX - 3);
  EXPECT_THAT(refusal(request), HasSubstr("target.planes[2]"));
  request = ReadRequest(match);
  request.mutable_target()->mutable_planes()->RemoveLast();
  EXPECT_THAT(refusal(request), HasSubstr("target.planes: expected 6"));
  request = ReadRequest(match);
  request.set_max_frame_payload_bytes(1000);
  EXPECT_THAT(refusal(request), HasSubstr("max_frame_payload_bytes"));
  request = ReadRequest(match);
  request.set_transport(static_cast<v1::Transport>(77));
  EXPECT_THAT(refusal(request), HasSubstr("transport: unknown value 77"));
}

TEST_P(RegionReadStreamTest, BadWritesNameTheFieldAndStoreNothing) {
  FillMemory(document_);
  const auto refusal = [&](const Frames& frames) {
    const grpc::Status status = Write(frames);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    return status.error_message();
  };
  Frames frames = {First(Begin(document_), kLayers + 1)};
  EXPECT_THAT(refusal(frames), HasSubstr("layers: expected 0..3"));
  frames = {First(Begin(document_), 1), {}};
  frames[1].set_commit(true);
  EXPECT_THAT(refusal(frames), HasSubstr("rows are missing"));
  frames = {First(Begin(document_), 1), {}};
  frames[1].set_tokens(1);
  frames[1].set_payload(std::string(kRowBytes, 'x'));
  EXPECT_THAT(refusal(frames), HasSubstr("are in its source"));
  frames = {First(Begin(document_), 1), First({}, 1)};
  EXPECT_THAT(refusal(frames), HasSubstr("source: belongs in the first frame"));
  frames = {First(Begin(document_), 1)};
  frames[0].mutable_source()->mutable_planes(1)->set_bytes(8);
  EXPECT_THAT(refusal(frames), HasSubstr("source.planes[1]"));
  frames = {First(Begin(document_), 1)};
  for (size_t t = 0; t < document_.size(); ++t) frames[0].mutable_source()->add_slots(-1);
  EXPECT_THAT(refusal(frames), HasSubstr("source.slots[0]: is negative"));
  frames = {First(Begin(document_), 1)};
  frames[0].clear_source();
  EXPECT_THAT(refusal(frames), HasSubstr("layers: no source"));
  frames = {First(Begin(document_), 1)};
  frames[0].set_exact(false);
  EXPECT_EQ(Write(frames).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(broker_->Stats().references, 0);
  EXPECT_EQ(broker_->Stats().uploads, 0);
  Put(document_);
}

// Readers take turns after each layer, so nobody waits for all the others.
TEST_P(RegionReadStreamTest, ManyReadersOfOneLease) {
  Put(document_);
  const Ids target = Shifted();
  const v1::Match match = Find(target);
  // Each has memory of its own: what two streams write to one place at a time is nobody's.
  constexpr int kReaders = 8;
  std::vector<std::unique_ptr<SharedMemory>> memories;
  std::vector<v1::ReadKvRequest> requests(kReaders, ReadRequest(match));
  for (v1::ReadKvRequest& request : requests) {
    memories.push_back(std::make_unique<SharedMemory>(memory_.bytes()));
    request.mutable_target()->set_region(*connection_->Register(*memories.back()));
  }
  std::vector<std::thread> readers;
  std::atomic<int> finished{0};
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&, i] {
      for (int round = 0; round < 5; ++round) {
        int last_layer;
        finished += Read(requests[i], &last_layer).ok() && last_layer == kLayers - 1;
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(finished.load(), kReaders * 5);
  for (const auto& memory : memories) {
    std::memcpy(memory_.data(), memory->data(), memory_.bytes());
    ASSERT_NO_FATAL_FAILURE(ExpectRows(match, target));
  }
}

TEST_P(RegionReadStreamTest, AWriterThatStopsIsCancelled) {
  FillMemory(document_);
  grpc::ClientContext context;
  v1::WriteKvResponse response;
  auto stream = stub_->WriteKv(&context, &response);
  ASSERT_TRUE(stream->Write(First(Begin(document_), 1)));
  while (broker_->metrics().put_bytes.load() == 0) std::this_thread::yield();
  EXPECT_EQ(server_->CancelStalled(now_ms_), 0);
  now_ms_ += BrokerOptions().upload_timeout_ms + 1;
  EXPECT_EQ(server_->CancelStalled(now_ms_), 1);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  while (broker_->Stats().uploads > 0) std::this_thread::yield();
  Put(document_);
}

// The C++ client over a buffer of its own, both ways.
TEST_P(RegionReadStreamTest, TheCppClientPutsAndReads) {
  const std::string path = dir_.path() + "/shm.sock";
  const auto buffer = client::SharedBuffer::Create(kLayers * 2 * kPlaneBytes);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  const auto handle = (*buffer)->Register(path);
  ASSERT_TRUE(handle.ok()) << handle.status();
  v1::KvView view = View();
  view.set_region(*handle);
  FillMemory(document_);
  const absl::Span<char> bytes = (*buffer)->bytes();
  std::memcpy(bytes.data(), memory_.data(), bytes.size());

  const auto client = Client::Create({.address = server_->address()});
  ASSERT_TRUE(client.ok());
  v1::BeginPutRequest put;
  put.set_model(spec_.fingerprint());
  for (const uint32_t id : document_) put.add_token_ids(id);
  EXPECT_EQ((*client)->PutFrom(put, view, kLayers + 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto stored = (*client)->PutFrom(put, view, kLayers);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_TRUE(stored->visible && stored->durable);
  EXPECT_EQ(stored->sent_tokens, document_.size());
  EXPECT_EQ((*client)->PutFrom(put, view, kLayers)->sent_tokens, 0U);

  v1::FindMatchRequest find;
  find.set_model(spec_.fingerprint());
  const Ids target = Shifted();
  for (const uint32_t id : target) find.add_token_ids(id);
  const auto found = (*client)->FindMatch(find);
  ASSERT_TRUE(found.ok() && found->lease.held());
  std::memset(bytes.data(), 0, bytes.size());
  uint32_t last = 0;
  const absl::Status read =
      (*client)->ReadInto(found->lease, {}, view, [&](uint32_t layer) { last = layer; });
  ASSERT_TRUE(read.ok()) << read;
  EXPECT_EQ(last, kLayers - 1U);
  std::memcpy(memory_.data(), bytes.data(), bytes.size());
  ExpectRows(found->lease.match(), target);

  view.set_region(std::string(16, 'x'));
  EXPECT_EQ((*client)->ReadInto(found->lease, {}, view, [](uint32_t) {}).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ((*buffer)->Register(dir_.path() + "/missing").status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(client::SharedBuffer::Create(0).status().code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Backends, RegionReadStreamTest, ::testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace semshare::testing
