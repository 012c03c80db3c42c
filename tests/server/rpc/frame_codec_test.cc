// The raw frames are the contract's messages, byte for byte, in both directions.
#include "server/rpc/frame_codec.h"

#include <string>

#include "gtest/gtest.h"
#include "semshare/v1/cache_broker.pb.h"

namespace semshare {
namespace {

std::string Join(const std::vector<std::string_view>& pieces) {
  std::string all;
  for (const std::string_view piece : pieces) all += piece;
  return all;
}

// Cut into slices of `step` bytes, as a network may.
grpc::ByteBuffer Cut(const std::string& bytes, size_t step) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < bytes.size(); at += step) slices.emplace_back(bytes.substr(at, step));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

v1::WriteKvFrame Sample() {
  v1::WriteKvFrame frame;
  frame.set_upload_id("0123456789abcdef");
  frame.set_exact(true);
  frame.set_layer(29);
  frame.set_plane(1);
  frame.set_token_begin(70000);
  frame.set_tokens(300);
  frame.set_commit(true);
  frame.set_payload(std::string(1000, 'p') + std::string(1, '\0') + "end");
  return frame;
}

TEST(FrameCodecTest, DecodesWhatProtobufWritesAtAnyCut) {
  const v1::WriteKvFrame sample = Sample();
  const std::string bytes = sample.SerializeAsString();
  for (const size_t step : {size_t{1}, size_t{2}, size_t{7}, size_t{100}, bytes.size()}) {
    const auto received = DecodeWriteFrame(Cut(bytes, step));
    ASSERT_TRUE(received.ok()) << received.status();
    EXPECT_EQ(received->upload_id, sample.upload_id());
    EXPECT_TRUE(received->frame.exact);
    EXPECT_EQ(received->frame.layer, 29);
    EXPECT_EQ(received->frame.plane, 1);
    EXPECT_EQ(received->frame.token_begin, 70000);
    EXPECT_EQ(received->frame.tokens, 300);
    EXPECT_TRUE(received->frame.commit);
    EXPECT_EQ(Join(received->pieces), sample.payload());
  }
}

TEST(FrameCodecTest, CutShortIsInvalidOrIncompleteNeverRead) {
  const std::string bytes = Sample().SerializeAsString();
  for (size_t size = 1; size < bytes.size(); ++size) {
    const auto received = DecodeWriteFrame(Cut(bytes.substr(0, size), 16));
    v1::WriteKvFrame reference;
    EXPECT_EQ(received.ok(), reference.ParseFromString(bytes.substr(0, size))) << size;
  }
}

TEST(FrameCodecTest, UnknownFieldsAreSkipped) {
  std::string bytes = Sample().SerializeAsString();
  bytes += std::string("\xa0\x06\x05", 3);              // field 100, varint
  bytes += std::string("\xaa\x06\x03zzz", 6);           // field 101, 3 bytes
  bytes += std::string("\xad\x06\x01\x02\x03\x04", 6);  // field 101, fixed32
  const auto received = DecodeWriteFrame(Cut(bytes, 5));
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_EQ(received->frame.layer, 29);
}

TEST(FrameCodecTest, NumbersBeyondUint32AreInvalid) {
  // Field 5 with a ten-byte varint.
  const std::string bytes("\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11);
  EXPECT_FALSE(DecodeWriteFrame(Cut(bytes, 4)).ok());
}

TEST(FrameCodecTest, ProtobufReadsWhatIsEncoded) {
  const std::string payload(200000, 'k');
  const grpc::ByteBuffer encoded = EncodeReadFrame({3, 1, 4096, 17, 200000}, grpc::Slice(payload));
  v1::ReadKvFrame frame;
  ASSERT_TRUE(ParseMessage(encoded, &frame).ok());
  EXPECT_EQ(frame.layer(), 3u);
  EXPECT_EQ(frame.plane(), 1u);
  EXPECT_EQ(frame.first_row(), 4096u);
  EXPECT_EQ(frame.rows(), 17u);
  EXPECT_EQ(frame.payload(), payload);
}

}  // namespace
}  // namespace semshare
