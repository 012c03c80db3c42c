#include "storage/record.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace semshare {
namespace {

RecordInfo Info(int64_t payload_bytes) {
  RecordInfo info;
  info.ns = MakeNamespaceId("t", "f");
  info.id = Id128{1, 2};
  info.parent = Id128{3, 4};
  info.tokens = 64;
  info.payload_bytes = payload_bytes;
  return info;
}

std::string MakeRecord(const RecordInfo& info, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string payload(static_cast<size_t>(info.payload_bytes), '\0');
  for (char& byte : payload) byte = static_cast<char>(random());
  std::string record(static_cast<size_t>(RecordHeaderBytes(info.payload_bytes)), '\0');
  WriteRecordHeader(info, payload.data(), record.data());
  return record + payload;
}

TEST(RecordTest, RoundTrip) {
  for (const int64_t bytes : {int64_t{1}, int64_t{256}, kRecordBlockBytes - 1, kRecordBlockBytes,
                              kRecordBlockBytes + 1, 3 * kRecordBlockBytes}) {
    const std::string record = MakeRecord(Info(bytes), 1);
    const auto payload = VerifyRecord(record, Info(bytes));
    ASSERT_TRUE(payload.ok()) << payload.status();
    EXPECT_EQ(*payload, std::string_view(record).substr(record.size() - payload->size()));
    EXPECT_EQ(static_cast<int64_t>(payload->size()), bytes);
  }
}

// If this changes, so must the version in the record.
TEST(RecordTest, GoldenHeader) {
  const std::string record = MakeRecord(Info(300), 1);
  EXPECT_EQ(record.substr(0, 8), "SEMSHCHK");
  EXPECT_EQ(record.substr(8, 8), std::string("\1\0\0\0\1\0\x40\0", 8));
  EXPECT_EQ(record.substr(32, 16), (Id128{1, 2}).ToBytes());
  EXPECT_EQ(record.substr(64, 8), std::string("\x2c\1\0\0\0\0\0\0", 8));
  EXPECT_EQ(record.substr(72, 8), std::string("\0\0\4\0\1\0\0\0", 8));
}

TEST(RecordTest, EveryFlippedBitIsFound) {
  const RecordInfo info = Info(700);
  std::string record = MakeRecord(info, 2);
  for (size_t i = 0; i < record.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      record[i] = static_cast<char>(record[i] ^ (1 << bit));
      EXPECT_TRUE(absl::IsDataLoss(VerifyRecord(record, info).status())) << i << " bit " << bit;
      record[i] = static_cast<char>(record[i] ^ (1 << bit));
    }
  }
  EXPECT_TRUE(VerifyRecord(record, info).ok());
}

TEST(RecordTest, FlippedBytesInEveryBlockAreFound) {
  const RecordInfo info = Info(2 * kRecordBlockBytes + 10);
  std::string record = MakeRecord(info, 3);
  for (size_t i = 0; i < record.size(); i += 40009) {
    record[i] = static_cast<char>(record[i] ^ 0x10);
    EXPECT_TRUE(absl::IsDataLoss(VerifyRecord(record, info).status())) << i;
    record[i] = static_cast<char>(record[i] ^ 0x10);
  }
  // Two whole blocks in the wrong order have right bytes, but not in their places.
  const auto header = static_cast<size_t>(RecordHeaderBytes(info.payload_bytes));
  const auto block = static_cast<size_t>(kRecordBlockBytes);
  const std::string swapped = record.substr(0, header) + record.substr(header + block, block) +
                              record.substr(header, block) + record.substr(header + 2 * block);
  EXPECT_TRUE(absl::IsDataLoss(VerifyRecord(swapped, info).status()));
}

TEST(RecordTest, TruncatedAndExtendedRecordsAreFound) {
  const RecordInfo info = Info(300);
  const std::string record = MakeRecord(info, 4);
  for (size_t size = 0; size < record.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(VerifyRecord(record.substr(0, size), info).status())) << size;
  }
  EXPECT_TRUE(absl::IsDataLoss(VerifyRecord(record + '\0', info).status()));
}

TEST(RecordTest, ARecordOfAnotherChunkIsFound) {
  const std::string record = MakeRecord(Info(300), 5);
  for (int field = 0; field < 6; ++field) {
    RecordInfo other = Info(300);
    if (field == 0) other.ns.low ^= 1;
    if (field == 1) other.id.low ^= 1;
    if (field == 2) other.parent.low ^= 1;
    if (field == 3) other.tokens = 63;
    if (field == 4) other.codec = Codec::kInt8;
    if (field == 5) other.payload_bytes = 301;
    EXPECT_TRUE(absl::IsDataLoss(VerifyRecord(record, other).status())) << field;
  }
}

}  // namespace
}  // namespace semshare
