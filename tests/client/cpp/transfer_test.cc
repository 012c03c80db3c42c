// The streaming calls of client/cpp/transfer.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "client/cpp/client.h"
#include "tests/client/cpp/samples.h"
#include "tests/client/cpp/scripted_broker.h"

namespace semshare::client {
namespace {

using testing::FrameOf;
using testing::FramesOf;
using ::testing::HasSubstr;
using testing::Id;
using testing::RowBytes;
using testing::SampleMatch;
using testing::SampleTarget;
using testing::ScriptedBroker;

class TransferTest : public ::testing::Test {
 protected:
  TransferTest() {
    broker_.script().find = SampleMatch();
    client_ = *Client::Create({broker_.address(), {.transfer_ms = 20000}});
  }

  // Reads the scripted messages; what arrived is in received_.
  absl::Status Read(const ReadOptions& options = {}) {
    absl::StatusOr<FindResult> found = client_->FindMatch(SampleTarget());
    if (!found.ok()) return found.status();
    return client_->Read(found->lease, options,
                         [this](const RowRange&, absl::Span<const absl::Span<const char>> pieces) {
                           for (const auto piece : pieces) {
                             received_.append(piece.data(), piece.size());
                           }
                           return absl::OkStatus();
                         });
  }

  // An upload of `tokens` tokens of which `missing` are asked for.
  void ExpectPut(std::vector<std::pair<uint32_t, uint32_t>> missing) {
    v1::BeginPutResponse answer;
    answer.set_upload_id(Id('u'));
    answer.set_reference_id(Id('r'));
    for (const auto& [begin, end] : missing) {
      v1::TokenRange* range = answer.add_missing();
      range->set_begin(begin);
      range->set_end(end);
    }
    broker_.script().begin_put = answer;
    v1::WriteKvResponse done;
    done.set_reference_id(Id('r'));
    done.set_visible(true);
    done.set_durable(true);
    broker_.script().write = done;
  }

  static v1::BeginPutRequest PutOf(uint32_t tokens) {
    v1::BeginPutRequest request;
    for (uint32_t i = 0; i < tokens; ++i) request.add_token_ids(i);
    return request;
  }

  // Rows that tell where they belong.
  static RowSource SourceFor(const KvShape& shape) {
    return [&shape](const RowRange& range, absl::Span<char> rows) -> absl::Status {
      const std::string bytes = RowBytes(range, shape.row_bytes[range.layer][range.plane]);
      EXPECT_EQ(bytes.size(), rows.size());
      std::copy(bytes.begin(), bytes.end(), rows.begin());
      return absl::OkStatus();
    };
  }

  ScriptedBroker broker_;
  std::unique_ptr<Client> client_;
  std::string received_;
};

TEST_F(TransferTest, ReadBringsAllRowsInOrder) {
  const KvShape shape = {{{8, 12}, {4}}};
  broker_.script().read_messages = FramesOf(shape, 10, 4);
  ASSERT_TRUE(Read({0, 2, 4096, shape}).ok());
  EXPECT_EQ(received_,
            RowBytes({0, 0, 0, 10}, 8) + RowBytes({0, 1, 0, 10}, 12) + RowBytes({1, 0, 0, 10}, 4));
  const v1::ReadKvRequest request = broker_.record().reads.at(0);
  EXPECT_EQ(request.lease_id(), Id('L'));
  EXPECT_EQ(request.layer_end(), 2u);
  EXPECT_EQ(request.transport(), v1::TRANSPORT_INLINE);
  EXPECT_EQ(request.max_frame_payload_bytes(), 4096u);
}

TEST_F(TransferTest, ReadPutsRowsIntoStridedMemory) {
  const KvShape shape = UniformShape(1, {8});
  broker_.script().read_messages = FramesOf(shape, 10, 3);
  std::vector<char> memory(80);
  // Two heads of 4 bytes, [head][row][width].
  const RowViews views = {{{memory.data(), 10, 4, 40, 2, 4}}};
  absl::StatusOr<FindResult> found = client_->FindMatch(SampleTarget());
  ASSERT_TRUE(client_->Read(found->lease, {}, IntoViews(views)).ok());
  for (int64_t row = 0; row < 10; ++row) {
    for (int64_t byte = 0; byte < 8; ++byte) {
      EXPECT_EQ(memory[(byte / 4) * 40 + row * 4 + byte % 4], testing::RowByte(0, 0, row, byte));
    }
  }
}

TEST_F(TransferTest, AFrameOfTheLargestPayloadFitsGrpcsLimit) {
  const KvShape shape = UniformShape(1, {kMaxFramePayloadBytes});
  broker_.script().read_messages = FramesOf(shape, 10, 1);
  const absl::Status status = Read();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(received_.size(), 10u * kMaxFramePayloadBytes);
}

TEST_F(TransferTest, MalformedAndMisplacedFramesAreRefused) {
  const KvShape shape = UniformShape(2, {8, 8});
  const std::vector<std::string> good = FramesOf(shape, 10, 10);
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"\x08"},
      {good[0].substr(0, good[0].size() - 1)},
      {good[1]},
      {good[0], good[2]},
      {good[0], good[0]},
      {good[0], good[1], good[3]},
      {good[0], good[1], good[2]},
      {FrameOf({0, 0, 0, 11}, 8).SerializeAsString()},
      {FrameOf({0, 0, 0, 9}, 8).SerializeAsString(), good[1]},
      {good[0], FrameOf({0, 1, 0, 10}, 9).SerializeAsString()},
  };
  for (size_t i = 0; i < wrong.size(); ++i) {
    broker_.script().read_messages = wrong[i];
    EXPECT_EQ(Read({0, 0, 0, shape}).code(), absl::StatusCode::kInternal) << "case " << i;
  }
  // Every lease went back all the same.
  EXPECT_EQ(broker_.record().releases.size(), wrong.size());
}

TEST_F(TransferTest, ReadTellsTheBrokersError) {
  broker_.script().read_messages = {FrameOf({0, 0, 0, 4}, 8).SerializeAsString()};
  broker_.script().read_status = absl::AbortedError("lease expired");
  const absl::Status status = Read();
  EXPECT_TRUE(absl::IsAborted(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("ReadKv: lease expired"));
}

TEST_F(TransferTest, ASinkThatFailsCancelsTheStream) {
  broker_.script().read_messages = FramesOf(UniformShape(1, {8}), 10, 1);
  broker_.script().read_hangs = true;
  absl::StatusOr<FindResult> found = client_->FindMatch(SampleTarget());
  const absl::Status status = client_->Read(
      found->lease, {}, [](const RowRange&, auto) { return absl::OutOfRangeError("my own"); });
  EXPECT_EQ(status, absl::OutOfRangeError("my own"));
  broker_.WaitFor([](const testing::BrokerRecord& record) { return record.reads_cancelled > 0; });
}

TEST_F(TransferTest, AStreamThatHangsCostsTheDeadline) {
  broker_.script().read_messages = {FrameOf({0, 0, 0, 4}, 8).SerializeAsString()};
  broker_.script().read_hangs = true;
  client_ = *Client::Create({broker_.address(), {.transfer_ms = 100}});
  EXPECT_TRUE(absl::IsDeadlineExceeded(Read()));
}

TEST_F(TransferTest, ABrokerThatDiesMidStreamIsAnError) {
  broker_.script().read_messages = {FrameOf({0, 0, 0, 4}, 8).SerializeAsString()};
  broker_.script().read_hangs = true;
  absl::StatusOr<FindResult> found = client_->FindMatch(SampleTarget());
  const absl::Status status = client_->Read(found->lease, {}, [&](const RowRange&, auto) {
    broker_.Stop();
    return absl::OkStatus();
  });
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(absl::IsDeadlineExceeded(status)) << status;
}

TEST_F(TransferTest, ReadNeedsALease) {
  const RowSink sink = [](const RowRange&, auto) { return absl::OkStatus(); };
  EXPECT_TRUE(absl::IsFailedPrecondition(client_->Read(Lease(), {}, sink)));
  EXPECT_TRUE(broker_.record().reads.empty());
}

TEST_F(TransferTest, PutSendsMissingRangesInOrderAndCommits) {
  const KvShape shape = {{{8, 12}, {4}}};
  ExpectPut({{2, 5}, {7, 10}});
  absl::StatusOr<PutResult> result = client_->Put(PutOf(10), shape, SourceFor(shape));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->reference_id, Id('r'));
  EXPECT_TRUE(result->durable);
  EXPECT_EQ(result->sent_tokens, 6u);
  EXPECT_EQ(result->sent_bytes, 6 * 24);
  const std::vector<v1::WriteKvFrame> writes = broker_.record().writes;
  ASSERT_EQ(writes.size(), 6u);
  size_t i = 0;
  for (const auto& [layer, plane, row_bytes] :
       {std::tuple{0u, 0u, 8}, std::tuple{0u, 1u, 12}, std::tuple{1u, 0u, 4}}) {
    for (const uint32_t begin : {2u, 7u}) {
      const v1::WriteKvFrame& frame = writes[i];
      EXPECT_EQ(frame.upload_id(), i == 0 ? Id('u') : "");
      EXPECT_EQ(frame.exact(), i == 0);
      EXPECT_EQ(frame.commit(), i == 5);
      EXPECT_EQ(frame.layer(), layer);
      EXPECT_EQ(frame.plane(), plane);
      EXPECT_EQ(frame.token_begin(), begin);
      EXPECT_EQ(frame.tokens(), 3u);
      EXPECT_EQ(frame.payload(), RowBytes({layer, plane, begin, 3}, row_bytes));
      ++i;
    }
  }
}

TEST_F(TransferTest, PutKeepsFramesWithinTheLimit) {
  // Three rows fill a frame to the last byte but one; a fourth would not fit.
  const KvShape shape = UniformShape(1, {kMaxFramePayloadBytes / 3});
  ExpectPut({{0, 7}});
  ASSERT_TRUE(client_->Put(PutOf(7), shape, SourceFor(shape)).ok());
  const std::vector<v1::WriteKvFrame> writes = broker_.record().writes;
  ASSERT_EQ(writes.size(), 3u);
  EXPECT_EQ(writes[0].tokens(), 3u);
  EXPECT_EQ(writes[1].token_begin(), 3u);
  EXPECT_EQ(writes[2].tokens(), 1u);
  EXPECT_TRUE(writes[2].commit());
}

TEST_F(TransferTest, LentRowsAreSentAndGivenBack) {
  constexpr int64_t kRowBytes = kMaxFramePayloadBytes / 3;
  const KvShape shape = UniformShape(1, {kRowBytes});
  ExpectPut({{0, 7}});
  auto rows = std::make_shared<std::string>(RowBytes({0, 0, 0, 7}, kRowBytes));
  const std::weak_ptr<const std::string> kept = rows;
  const PlaneView view = {rows->data(), 7, kRowBytes, kRowBytes, 1, kRowBytes};
  ASSERT_TRUE(client_->Put(PutOf(7), shape, FromViews({{view}}, std::move(rows))).ok());
  std::string sent;
  for (const v1::WriteKvFrame& frame : broker_.record().writes) sent += frame.payload();
  EXPECT_TRUE(sent == RowBytes({0, 0, 0, 7}, kRowBytes));
  while (!kept.expired()) std::this_thread::yield();
}

TEST_F(TransferTest, RowsAtTheFrameLimitAreSentAndAboveItRefused) {
  KvShape shape = UniformShape(1, {kMaxFramePayloadBytes});
  ExpectPut({{0, 1}});
  EXPECT_TRUE(client_->Put(PutOf(1), shape, SourceFor(shape)).ok());
  shape = UniformShape(1, {kMaxFramePayloadBytes + 1});
  EXPECT_TRUE(absl::IsInvalidArgument(client_->Put(PutOf(1), shape, SourceFor(shape)).status()));
  for (const KvShape& empty : {KvShape{}, KvShape{{{}}}, KvShape{{{0}}}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(client_->Put(PutOf(1), empty, SourceFor(empty)).status()));
  }
  EXPECT_EQ(broker_.record().puts.size(), 1u);
}

TEST_F(TransferTest, WhatTheBrokerHoldsIsNotSent) {
  const KvShape shape = UniformShape(1, {8});
  v1::BeginPutResponse held;
  held.set_reference_id(Id('r'));
  held.set_visible(true);
  broker_.script().begin_put = held;
  absl::StatusOr<PutResult> result = client_->Put(PutOf(5), shape, SourceFor(shape));
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->visible);
  EXPECT_FALSE(result->durable);
  EXPECT_EQ(result->sent_bytes, 0);
  // An upload of nothing new still has to be committed.
  ExpectPut({});
  ASSERT_TRUE(client_->Put(PutOf(5), shape, SourceFor(shape)).ok());
  const std::vector<v1::WriteKvFrame> writes = broker_.record().writes;
  ASSERT_EQ(writes.size(), 1u);
  EXPECT_TRUE(writes[0].commit());
  EXPECT_EQ(writes[0].upload_id(), Id('u'));
}

TEST_F(TransferTest, ASourceThatFailsDropsTheUpload) {
  const KvShape shape = UniformShape(2, {8, 8});
  ExpectPut({{0, 5}});
  int calls = 0;
  absl::StatusOr<PutResult> result =
      client_->Put(PutOf(5), shape, [&](const RowRange&, absl::Span<char>) -> absl::Status {
        return ++calls < 3 ? absl::OkStatus() : absl::DataLossError("file ends");
      });
  EXPECT_EQ(result.status(), absl::DataLossError("file ends"));
  broker_.WaitFor([](const testing::BrokerRecord& record) { return record.write_dropped; });
}

TEST_F(TransferTest, ABrokerThatRefusesMidUploadIsHeard) {
  const KvShape shape = UniformShape(40, {kMaxFramePayloadBytes});
  ExpectPut({{0, 1}});
  broker_.script().write_frames_at_most = 2;
  broker_.script().write = absl::ResourceExhaustedError("arena full");
  const RowSource source = [](const RowRange&, absl::Span<char>) { return absl::OkStatus(); };
  const absl::Status status = client_->Put(PutOf(1), shape, source).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(status.message(), "WriteKv: arena full");
}

TEST_F(TransferTest, ABrokerThatHasItAllMidUploadIsBelieved) {
  const KvShape shape = UniformShape(40, {kMaxFramePayloadBytes});
  ExpectPut({{0, 1}});
  broker_.script().write_frames_at_most = 2;
  const RowSource source = [](const RowRange&, absl::Span<char>) { return absl::OkStatus(); };
  absl::StatusOr<PutResult> result = client_->Put(PutOf(1), shape, source);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->visible);
}

TEST_F(TransferTest, WrongAnswersToAPutAreRefused) {
  const KvShape shape = UniformShape(1, {8});
  ExpectPut({{0, 6}});
  EXPECT_TRUE(absl::IsInternal(client_->Put(PutOf(5), shape, SourceFor(shape)).status()));
  ExpectPut({{0, 5}});
  broker_.script().write->set_reference_id(Id('x'));
  EXPECT_TRUE(absl::IsInternal(client_->Put(PutOf(5), shape, SourceFor(shape)).status()));
  broker_.script().begin_put = absl::NotFoundError("unknown model");
  EXPECT_TRUE(absl::IsNotFound(client_->Put(PutOf(5), shape, SourceFor(shape)).status()));
}

TEST_F(TransferTest, RegisterModelSendsSpecTableWeightsProbes) {
  v1::ModelSpec spec;
  spec.set_name("tiny");
  // One float more than fits a frame.
  const std::vector<float> table(kMaxFramePayloadBytes / sizeof(float) + 1, 1.5f);
  const std::vector<float> weights = {0.25f, 0.5f};
  v1::ProbeSample probe;
  probe.set_token_id(3);
  absl::StatusOr<v1::RegisterModelResponse> response =
      client_->RegisterModel(spec, {table, weights, {probe, probe}});
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_TRUE(response->created());
  const std::vector<v1::RegisterModelFrame> frames = broker_.record().model_frames;
  ASSERT_EQ(frames.size(), 6u);
  EXPECT_EQ(frames[0].spec().name(), "tiny");
  EXPECT_EQ(frames[1].embedding_table().size(), static_cast<size_t>(kMaxFramePayloadBytes));
  EXPECT_EQ(frames[2].embedding_table().size(), sizeof(float));
  EXPECT_EQ(frames[3].token_weights().size(), 2 * sizeof(float));
  EXPECT_EQ(frames[5].probe().token_id(), 3u);
  broker_.script().register_status = absl::FailedPreconditionError("probe: layer 3");
  EXPECT_TRUE(absl::IsFailedPrecondition(client_->RegisterModel(spec, {}).status()));
}

}  // namespace
}  // namespace semshare::client
