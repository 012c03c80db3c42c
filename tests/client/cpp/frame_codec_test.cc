#include "client/cpp/frame_codec.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/client/cpp/samples.h"

namespace semshare::client {
namespace {

using testing::FrameOf;
using testing::RowBytes;

// Cuts a message into pieces of `piece_bytes`.
std::vector<absl::Span<const char>> Cut(const std::string& message, size_t piece_bytes) {
  std::vector<absl::Span<const char>> pieces;
  for (size_t i = 0; i < message.size(); i += piece_bytes) {
    pieces.push_back(absl::MakeConstSpan(message).subspan(i, piece_bytes));
  }
  return pieces;
}

std::string Joined(absl::Span<const absl::Span<const char>> pieces) {
  PieceReader reader(pieces);
  std::string bytes(static_cast<size_t>(reader.left()), '\0');
  reader.Copy(bytes.data(), reader.left());
  return bytes;
}

// The frame points into `message`.
absl::StatusOr<KvFrame> Parse(const std::string& message) {
  return ParseReadKvFrame(Cut(message, 1 << 20));
}

TEST(FrameCodecTest, ReadsWhatProtobufWrites) {
  const RowRange range = {300, 1, 70000, 5};
  const std::string message = FrameOf(range, 24).SerializeAsString();
  for (const size_t piece_bytes : {1, 2, 7, 4096}) {
    const auto pieces = Cut(message, piece_bytes);
    absl::StatusOr<KvFrame> frame = ParseReadKvFrame(pieces);
    ASSERT_TRUE(frame.ok()) << frame.status();
    EXPECT_EQ(frame->range.layer, 300u);
    EXPECT_EQ(frame->range.plane, 1u);
    EXPECT_EQ(frame->range.begin, 70000u);
    EXPECT_EQ(frame->range.count, 5u);
    EXPECT_EQ(frame->payload_bytes, 120);
    EXPECT_EQ(Joined(frame->payload), RowBytes(range, 24));
  }
}

TEST(FrameCodecTest, PayloadIsNotCopied) {
  const std::string message = FrameOf({0, 0, 0, 4}, 64).SerializeAsString();
  absl::StatusOr<KvFrame> frame = Parse(message);
  ASSERT_TRUE(frame.ok());
  ASSERT_EQ(frame->payload.size(), 1u);
  EXPECT_EQ(frame->payload[0].data() + 256, message.data() + message.size());
}

TEST(FrameCodecTest, EmptyMessageIsAFrameOfZeros) {
  absl::StatusOr<KvFrame> frame = Parse("");
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->range.count, 0u);
  EXPECT_EQ(frame->payload_bytes, 0);
}

TEST(FrameCodecTest, FieldsInAnyOrderAndUnknownOnesAreFine) {
  v1::ReadKvFrame payload;
  payload.set_payload("abc");
  v1::ReadKvFrame numbers;
  numbers.set_layer(2);
  numbers.set_rows(1);
  // Field 20 as varint, fixed64, bytes and fixed32.
  const std::string unknown = std::string("\xa0\x01\x96\x01", 4) +
                              std::string(
                                  "\xa1\x01"
                                  "12345678",
                                  10) +
                              std::string("\xa2\x01\x02xy", 5) +
                              std::string(
                                  "\xa5\x01"
                                  "1234",
                                  6);
  const std::string message = payload.SerializeAsString() + unknown + numbers.SerializeAsString();
  absl::StatusOr<KvFrame> frame = Parse(message);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->range.layer, 2u);
  EXPECT_EQ(Joined(frame->payload), "abc");
}

TEST(FrameCodecTest, MalformedMessagesAreRefused) {
  const std::vector<std::string> messages = {
      "\x08",                          // A tag without its value.
      std::string("\x08\x80\x80", 3),  // A varint that goes on.
      std::string(11, '\xff'),         // A varint longer than any.
      std::string("\x7a\x05"
                  "ab",
                  4),  // A payload cut off.
      std::string("\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
                  "a",
                  12),                  // A payload of 2^64 - 1.
      std::string("\xa2\x01\x09x", 4),  // An unknown field cut off.
      std::string("\xa1\x01"
                  "1234",
                  6),                                  // A fixed64 cut off.
      std::string("\x0b", 1),                          // A group.
      std::string("\x00\x01", 2),                      // Field number 0.
      std::string("\x88\x80\x80\x80\x80\x01\x01", 7),  // A tag above 32 bits.
      std::string("\x08\xff\xff\xff\xff\x1f", 6),      // A layer above 32 bits.
  };
  for (const std::string& message : messages) {
    EXPECT_EQ(Parse(message).status().code(), absl::StatusCode::kInternal)
        << ::testing::PrintToString(message);
  }
}

TEST(FrameCodecTest, RandomBytesNeverReadBeyondTheMessage) {
  std::mt19937 random(7);
  const std::string good = FrameOf({1, 2, 3, 4}, 8).SerializeAsString();
  for (int i = 0; i < 20000; ++i) {
    std::string message = good.substr(0, random() % (good.size() + 1));
    for (int flips = 0; flips < 3 && !message.empty(); ++flips) {
      message[random() % message.size()] = static_cast<char>(random());
    }
    absl::StatusOr<KvFrame> frame = ParseReadKvFrame(Cut(message, 1 + random() % 9));
    v1::ReadKvFrame truth;
    // What protobuf takes may be refused here (a number above 32 bits, a group), never the reverse.
    if (frame.ok()) {
      ASSERT_TRUE(truth.ParseFromString(message)) << ::testing::PrintToString(message);
      EXPECT_EQ(truth.rows(), frame->range.count);
      EXPECT_EQ(truth.payload(), Joined(frame->payload));
    }
  }
}

TEST(FrameCodecTest, WrittenHeadAndPayloadAreOneMessage) {
  v1::WriteKvFrame small;
  small.set_upload_id(testing::Id('u'));
  small.set_exact(true);
  small.set_layer(3);
  small.set_token_begin(64);
  small.set_tokens(2);
  const std::string payload(70000, 'x');
  v1::WriteKvFrame read;
  ASSERT_TRUE(read.ParseFromString(WriteKvFrameHead(small, static_cast<int64_t>(payload.size())) +
                                   payload));
  EXPECT_EQ(read.payload(), payload);
  read.clear_payload();
  EXPECT_EQ(read.SerializeAsString(), small.SerializeAsString());
  EXPECT_EQ(WriteKvFrameHead(small, 0), small.SerializeAsString());
}

}  // namespace
}  // namespace semshare::client
