// What a worker may send, and what is refused, frame by frame.
#include "server/upload.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/broker_harness.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;

class UploadTest : public ::testing::Test {
 protected:
  UploadTest() : harness_(BackendCases()[0]) {
    EXPECT_TRUE(harness_.RegisterModel().ok());
    const auto ticket = harness_.broker->BeginPut(kTenant, harness_.Put(RandomIds(150, 1)));
    EXPECT_TRUE(ticket.ok());
    upload_ = *harness_.broker->TakeUpload(kTenant, ticket->upload_id);
  }

  absl::Status Write(const WriteFrame& frame, size_t bytes) {
    const std::string payload(bytes, '\0');
    const std::string_view piece = payload;
    absl::StatusOr<Lane> lane = harness_.backend->AcquireLane(absl::Seconds(1));
    return upload_->Write(frame, {&piece, 1}, harness_.backend.get(), *lane);
  }
  void ExpectRefused(const WriteFrame& frame, size_t bytes, const char* field) {
    const absl::Status status = Write(frame, bytes);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  }

  static constexpr size_t kRow = TinyEngine::kHeads * TinyEngine::kWidth * 4;
  BrokerHarness harness_;
  std::unique_ptr<Upload> upload_;
};

TEST_F(UploadTest, InexactRowsAreRefused) {
  const absl::Status status = Write({false, 0, 0, 0, 10, false}, 10 * kRow);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
}

TEST_F(UploadTest, OrderAndSizesAreChecked) {
  ExpectRefused({true, 1, 0, 0, 10, false}, 10 * kRow, "layer");
  ExpectRefused({true, 0, 1, 0, 10, false}, 10 * kRow, "plane");
  ExpectRefused({true, 0, 0, 1, 10, false}, 10 * kRow, "token_begin");
  ExpectRefused({true, 0, 0, 0, 151, false}, 151 * kRow, "tokens");
  ExpectRefused({true, 0, 0, 0, 10, false}, 10 * kRow - 1, "payload");
  ExpectRefused({true, 0, 0, 0, 0, false}, kRow, "tokens");
  EXPECT_TRUE(Write({true, 0, 0, 0, 10, false}, 10 * kRow).ok());
  ExpectRefused({false, 0, 0, 0, 10, false}, 10 * kRow, "token_begin");  // sent twice
  EXPECT_TRUE(Write({false, 0, 0, 10, 140, false}, 140 * kRow).ok());
  ExpectRefused({false, 0, 0, 150, 1, false}, kRow, "plane");
  EXPECT_FALSE(upload_->complete());
}

TEST_F(UploadTest, CommitWithoutAllRowsIsRefused) {
  EXPECT_TRUE(Write({true, 0, 0, 0, 150, false}, 150 * kRow).ok());
  const auto result = harness_.broker->Commit(std::move(upload_));
  EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
  EXPECT_EQ(harness_.broker->Stats().references, 0);
}

TEST_F(UploadTest, ExtraRowsAfterTheLastAreRefused) {
  for (int layer = 0; layer < TinyEngine::kLayers; ++layer) {
    for (int plane = 0; plane < 2; ++plane) {
      ASSERT_TRUE(Write({true, layer, plane, 0, 150, false}, 150 * kRow).ok());
    }
  }
  EXPECT_TRUE(upload_->complete());
  ExpectRefused({false, TinyEngine::kLayers, 0, 0, 1, false}, kRow, "payload");
  EXPECT_TRUE(harness_.broker->Commit(std::move(upload_)).ok());
}

}  // namespace
}  // namespace semshare::testing
