#include "proto/rpc_status.h"

#include "gtest/gtest.h"
#include "semshare/rpc/error_details.pb.h"

namespace semshare {
namespace {

TEST(RpcStatusTest, CodesAndMessagesTravelBothWays) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "priority: expected 0..255");
    const grpc::Status sent = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(sent.error_code()), code);
    const absl::Status received = FromGrpcStatus(sent);
    EXPECT_EQ(received.code(), status.code());
    EXPECT_EQ(received.message(), status.message());
  }
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
  EXPECT_TRUE(absl::IsUnknown(FromGrpcStatus(grpc::Status(grpc::StatusCode(99), "odd"))));
}

TEST(RpcStatusTest, WhatMayBeTriedAgainSaysWhen) {
  const absl::Status full = FromGrpcStatus(ToGrpcStatus(absl::ResourceExhaustedError("full")));
  EXPECT_EQ(RetryDelay(full), kExhaustedRetryDelay);
  const absl::Status down = FromGrpcStatus(ToGrpcStatus(absl::UnavailableError("draining")));
  EXPECT_EQ(RetryDelay(down), kUnavailableRetryDelay);
  const absl::Status wrong = FromGrpcStatus(ToGrpcStatus(absl::InvalidArgumentError("mode")));
  EXPECT_EQ(RetryDelay(wrong), std::nullopt);
  EXPECT_TRUE(ToGrpcStatus(wrong).error_details().empty());
}

// The bytes of google.rpc.Status{8, "full", [Any{"type...RetryInfo", RetryInfo{100 ms}}]}, by hand.
TEST(RpcStatusTest, DetailsAreThoseOfGoogleRpc) {
  const std::string url = "type.googleapis.com/google.rpc.RetryInfo";
  const std::string duration = std::string("\x10\x80\xc2\xd7\x2f", 5);  // nanos 100000000
  const std::string retry = std::string("\x0a\x05", 2) + duration;
  const std::string any = std::string("\x0a", 1) + static_cast<char>(url.size()) + url +
                          std::string("\x12\x07", 2) + retry;
  const std::string expected = std::string(
                                   "\x08\x08\x12\x04"
                                   "full"
                                   "\x1a",
                                   9) +
                               static_cast<char>(any.size()) + any;
  EXPECT_EQ(ToGrpcStatus(absl::ResourceExhaustedError("full")).error_details(), expected);
}

TEST(RpcStatusTest, DetailsThatCannotBeReadSayNothing) {
  const grpc::Status odd(grpc::StatusCode::RESOURCE_EXHAUSTED, "full", "\xff\xff not a message");
  EXPECT_EQ(RetryDelay(FromGrpcStatus(odd)), std::nullopt);
  rpc::StatusDetails details;
  details.add_details()->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  details.mutable_details(0)->set_value("\xff\xff");
  const grpc::Status bad(grpc::StatusCode::UNAVAILABLE, "", details.SerializeAsString());
  EXPECT_EQ(RetryDelay(FromGrpcStatus(bad)), std::nullopt);
}

}  // namespace
}  // namespace semshare
