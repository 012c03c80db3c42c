#include "server/prompt_check.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace semshare {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;
using Tags = std::vector<ContentTag>;

class PromptCheckTest : public ::testing::Test {
 protected:
  PromptCheckTest() {
    info_.vocab_size = 100;
    info_.max_positions = 500;
    limits_.max_tokens = 400;
    limits_.max_content_tags = 3;
    limits_.max_tag_digest_bytes = 8;
  }
  void ExpectAccepted(const Ids& ids, const Tags& tags = {}) {
    const absl::Status status = CheckPrompt(ids, tags, info_, limits_);
    EXPECT_TRUE(status.ok()) << status;
  }
  void ExpectRefused(const Ids& ids, const Tags& tags, const char* field) {
    const absl::Status status = CheckPrompt(ids, tags, info_, limits_);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  }

  ModelInfo info_;
  Limits limits_;
  const Ids ten_ = Ids(10, 1);
};

TEST_F(PromptCheckTest, TokensUpToTheLimit) {
  ExpectRefused({}, {}, "token_ids");
  ExpectAccepted(Ids(1, 1));
  ExpectAccepted(Ids(limits_.max_tokens, 1));
  ExpectRefused(Ids(limits_.max_tokens + 1, 1), {}, "token_ids");
}

TEST_F(PromptCheckTest, TokensUpToTheModelsPositions) {
  limits_.max_tokens = 1000;
  ExpectAccepted(Ids(info_.max_positions, 1));
  ExpectRefused(Ids(info_.max_positions + 1, 1), {}, "positions");
}

TEST_F(PromptCheckTest, IdsBelowTheVocabulary) {
  ExpectAccepted({0, 99});
  ExpectRefused({0, 100}, {}, "vocabulary");
  ExpectRefused({0xffffffff}, {}, "vocabulary");
}

TEST_F(PromptCheckTest, TagsUpToTheLimit) {
  const Tags three = {{0, 1, "a"}, {1, 2, "b"}, {9, 10, "c"}};
  ExpectAccepted(ten_, three);
  Tags four = three;
  four.insert(four.begin() + 2, {2, 3, "d"});
  ExpectRefused(ten_, four, "content_tags");
}

TEST_F(PromptCheckTest, DigestsUpToTheLimit) {
  ExpectRefused(ten_, {{0, 1, ""}}, "content_tags.digest");
  ExpectAccepted(ten_, {{0, 1, std::string(8, 'x')}});
  ExpectRefused(ten_, {{0, 1, std::string(9, 'x')}}, "content_tags.digest");
}

TEST_F(PromptCheckTest, TagsLieInThePromptAscendingAndDisjoint) {
  ExpectAccepted(ten_, {{0, 10, "a"}});
  for (const Tags& tags :
       {Tags{{0, 11, "a"}}, Tags{{5, 5, "a"}}, Tags{{6, 5, "a"}}, Tags{{-1, 5, "a"}},
        Tags{{0, 5, "a"}, {4, 6, "b"}}, Tags{{5, 6, "a"}, {0, 1, "b"}}}) {
    ExpectRefused(ten_, tags, "content_tags.range");
  }
}

}  // namespace
}  // namespace semshare
