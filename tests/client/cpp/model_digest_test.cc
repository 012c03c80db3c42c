#include "client/cpp/model_digest.h"

#include <gtest/gtest.h>

#include "absl/strings/escaping.h"

namespace semshare::client {
namespace {

TEST(ModelDigestTest, DigestsAreThoseOfTheContract) {
  v1::ModelSpec spec;
  // sha256("semshare.ModelSpec.v1" + "\0").
  const std::string empty = FingerprintOf(spec);
  EXPECT_EQ(empty.size(), 32u);
  EXPECT_EQ(absl::BytesToHexString(empty),
            "85ca1a59b012f468dbb3e74c0149c8f0ea9e780bfef8904355c0f6a173551a6d");
  spec.set_fingerprint("anything");
  EXPECT_EQ(FingerprintOf(spec), empty) << "it is no part of itself";
  spec.set_name("tiny");
  EXPECT_EQ(absl::BytesToHexString(FingerprintOf(spec)),
            "d9781fcd3cf92250c192477da9107134f09dfd5bb98361519ba1e2f741c8ea13");
}

TEST(ModelDigestTest, SealingCoversTableWeightsAndSpec) {
  const std::vector<float> table = {1.0f, -2.5f, 0.0f};
  v1::ModelSpec spec;
  SealSpec(table, {}, &spec);
  EXPECT_EQ(absl::BytesToHexString(spec.embedding_digest()),
            "738e86d615200bd3391d7ae379779a8e4644bade56d93d0634aa07004fa697f3");
  EXPECT_TRUE(spec.token_weights_digest().empty());
  EXPECT_EQ(spec.fingerprint(), FingerprintOf(spec));
  const std::string without_weights = spec.fingerprint();
  SealSpec(table, table, &spec);
  EXPECT_EQ(spec.token_weights_digest(), spec.embedding_digest());
  EXPECT_NE(spec.fingerprint(), without_weights);
}

}  // namespace
}  // namespace semshare::client
