// What only the contract knows: limits of a spec, its fingerprint, enums.
#include "server/rpc/convert.h"

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/rpc/contract_engine.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;

const TinyEngine& Engine() {
  static const TinyEngine* const engine = new TinyEngine(7);
  return *engine;
}

// The status of a spec after an edit, its fingerprint made right again.
absl::Status Edited(const std::function<void(v1::ModelSpec*)>& edit) {
  v1::ModelSpec spec = ContractSpec(Engine());
  edit(&spec);
  spec.set_fingerprint(ComputeFingerprint(spec));
  return ToModelInfo(spec, Limits()).status();
}

TEST(ConvertModelTest, RoundTripsThroughItsSerialisation) {
  const auto info = ToModelInfo(ContractSpec(Engine()), Limits());
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->layout->token_bytes(), Engine().info().layout->token_bytes());
  EXPECT_EQ(info->layout->rotaries(), Engine().info().layout->rotaries());
  const auto again = ParseModelInfo(info->serialized, Limits());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->fingerprint, info->fingerprint);
  EXPECT_EQ(again->serialized, info->serialized);
}

TEST(ConvertModelTest, FingerprintCoversEveryField) {
  const std::string before = ComputeFingerprint(ContractSpec(Engine()));
  v1::ModelSpec spec = ContractSpec(Engine());
  spec.set_adapter("lora");
  EXPECT_NE(ComputeFingerprint(spec), before);
  EXPECT_TRUE(absl::IsFailedPrecondition(ToModelInfo(spec, Limits()).status()));
}

TEST(ConvertModelTest, FieldsOutOfLimitsAreNamed) {
  const auto expect = [](const absl::Status& status, const char* field) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  };
  expect(Edited([](v1::ModelSpec* s) { s->set_layers(0); }), "layers");
  expect(Edited([](v1::ModelSpec* s) { s->set_layers(1025); }), "layers");
  expect(Edited([](v1::ModelSpec* s) { s->set_layers(4); }), "layer 3");
  expect(Edited([](v1::ModelSpec* s) { s->set_vocab_size(0); }), "vocab_size");
  expect(Edited([](v1::ModelSpec* s) { s->set_weights_digest("short"); }), "weights_digest");
  expect(Edited([](v1::ModelSpec* s) { s->set_name(std::string(257, 'n')); }), "name");
  const auto plane = [](v1::ModelSpec* s) { return s->mutable_layer_groups(0)->mutable_planes(0); };
  expect(Edited([&](v1::ModelSpec* s) { plane(s)->set_heads(1025); }), "heads");
  expect(Edited([&](v1::ModelSpec* s) { plane(s)->mutable_rotary()->set_width(15); }),
         "rotary.width");
  expect(Edited([&](v1::ModelSpec* s) { plane(s)->mutable_rotary()->add_inv_freq(1); }),
         "inv_freq");
  expect(Edited([&](v1::ModelSpec* s) { plane(s)->mutable_rotary()->set_magnitude(0); }),
         "magnitude");
  EXPECT_TRUE(absl::IsUnimplemented(
      Edited([](v1::ModelSpec* s) { s->set_dtype(static_cast<v1::Dtype>(9)); })));
}

TEST(ConvertRequestTest, DefaultsAndUnknownValues) {
  v1::FindMatchRequest find;
  const auto defaults = ToFindRequest(find);
  ASSERT_TRUE(defaults.ok());
  EXPECT_EQ(defaults->mode, MatchMode::kToken);
  EXPECT_EQ(defaults->preset, Preset::kAuto);
  find.set_mode(static_cast<v1::MatchMode>(77));
  EXPECT_TRUE(absl::IsInvalidArgument(ToFindRequest(find).status()));

  find.set_mode(v1::MATCH_MODE_TOKEN);
  find.mutable_semsharekv()->set_retain(false);
  EXPECT_TRUE(absl::IsInvalidArgument(ToFindRequest(find).status())) << "another mode's numbers";
  find.set_mode(v1::MATCH_MODE_SEMSHAREKV);
  find.mutable_semsharekv()->set_alpha_recompute(0.5);
  const auto paper = ToFindRequest(find);
  ASSERT_TRUE(paper.ok()) << paper.status();
  EXPECT_FALSE(paper->paper.retain);
  EXPECT_EQ(paper->paper.alpha_recompute, 0.5);
  EXPECT_EQ(paper->paper.hot_weight, PaperOptions().hot_weight) << "what is not set is the paper's";

  const BackendInfo cpu{"cpu", ""};
  const BackendInfo gpu{"cuda", "", /*opens_peer_memory=*/true};
  v1::BeginPutRequest put;
  EXPECT_TRUE(ToPutRequest(put, cpu)->durable);
  put.set_durability(v1::DURABILITY_MEMORY);
  EXPECT_FALSE(ToPutRequest(put, cpu)->durable);
  put.set_transport(v1::TRANSPORT_CUDA_IPC);
  EXPECT_TRUE(absl::IsUnimplemented(ToPutRequest(put, cpu).status()));
  EXPECT_TRUE(ToPutRequest(put, gpu).ok());
}

}  // namespace
}  // namespace semshare::testing
