#include "client/cpp/ctl/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace semshare::client::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<FlagSpec>& Globals() {
  static const auto* const kFlags = new std::vector<FlagSpec>{
      {"address", "HOST:PORT", "the broker"}, {"json", "", "print JSON"}, {"help", "", "help"}};
  return *kFlags;
}

const std::vector<CommandSpec>& Commands() {
  static const auto* const kCommands = new std::vector<CommandSpec>{
      {"list", {}, "Lists", {{"limit", "N", "at most"}}},
      {"delete", {"REF"}, "Removes", {{"model", "FP", "of this model"}}}};
  return *kCommands;
}

absl::StatusOr<Arguments> Parse(const std::vector<std::string>& words) {
  return ParseArguments(words, Globals(), Commands());
}

TEST(ArgumentsTest, FlagsStandAnywhereInBothForms) {
  absl::StatusOr<Arguments> arguments =
      Parse({"--address", "h:1", "delete", "--model=ab=c", "doc", "--json"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_EQ(arguments->command, "delete");
  EXPECT_THAT(arguments->positional, ElementsAre("doc"));
  EXPECT_EQ(arguments->Text("address"), "h:1");
  EXPECT_EQ(arguments->Text("model"), "ab=c");
  EXPECT_EQ(arguments->Text("json"), "true");
  EXPECT_EQ(arguments->Text("limit", "none"), "none");
}

TEST(ArgumentsTest, MistakesAreUsageErrors) {
  const std::vector<std::vector<std::string>> mistakes = {
      {},
      {"lost"},
      {"list", "--wrong=1"},
      {"list", "--model=ab"},
      {"list", "more"},
      {"delete"},
      {"delete", "a", "b"},
      {"list", "--limit"},
      {"list", "--json=yes"},
      {"--json"},
  };
  for (const std::vector<std::string>& words : mistakes) {
    EXPECT_TRUE(IsUsageError(Parse(words).status())) << ::testing::PrintToString(words);
  }
  EXPECT_FALSE(IsUsageError(absl::InvalidArgumentError("from the broker")));
}

TEST(ArgumentsTest, HelpForgivesTheRest) {
  EXPECT_TRUE(Parse({"--help"}).ok());
  EXPECT_TRUE(Parse({"delete", "--help"}).ok());
}

TEST(ArgumentsTest, NumbersAreChecked) {
  Arguments arguments;
  arguments.flags = {{"n", "255"}, {"big", "256"},   {"minus", "-1"}, {"word", "x"},
                     {"none", ""}, {"real", "0.25"}, {"nan", "nan"},  {"negative", "-0.5"}};
  EXPECT_EQ(*arguments.Number("n", 0, 255), 255u);
  EXPECT_EQ(*arguments.Number("absent", 7, 255), 7u);
  for (const char* name : {"big", "minus", "word", "none"}) {
    EXPECT_TRUE(IsUsageError(arguments.Number(name, 0, 255).status())) << name;
  }
  EXPECT_EQ(*arguments.Real("real", 0), 0.25);
  EXPECT_EQ(*arguments.Real("absent", 2.5), 2.5);
  for (const char* name : {"nan", "negative", "word", "none"}) {
    EXPECT_TRUE(IsUsageError(arguments.Real(name, 0).status())) << name;
  }
  EXPECT_TRUE(IsUsageError(arguments.Required("absent").status()));
  EXPECT_TRUE(IsUsageError(arguments.Required("none").status()));
}

TEST(ArgumentsTest, DurationsKnowDays) {
  Arguments arguments;
  arguments.flags = {{"s", "90s"},   {"m", "1h30m"},   {"d", "7d"},   {"half", "0.5d"},
                     {"zero", "0s"}, {"minus", "-5s"}, {"bare", "5"}, {"word", "soon"},
                     {"inf", "inf"}, {"infd", "infd"}};
  EXPECT_EQ(*arguments.Milliseconds("s", 0), 90'000);
  EXPECT_EQ(*arguments.Milliseconds("m", 0), 5'400'000);
  EXPECT_EQ(*arguments.Milliseconds("d", 0), 604'800'000);
  EXPECT_EQ(*arguments.Milliseconds("half", 0), 43'200'000);
  for (const char* name : {"zero", "minus", "bare", "word", "inf", "infd"}) {
    EXPECT_TRUE(IsUsageError(arguments.Milliseconds(name, 0).status())) << name;
  }
}

TEST(ArgumentsTest, HelpNamesEveryCommandAndFlag) {
  const std::string help = HelpText(Globals(), Commands());
  for (const char* text : {"list", "delete REF", "--address=HOST:PORT", "--json", "--help"}) {
    EXPECT_THAT(help, HasSubstr(text));
  }
  EXPECT_EQ(CommandHelpText(Commands()[1]),
            "Usage: semsharectl [FLAGS] delete REF\n\nRemoves.\n\nFlags:\n"
            "  --model=FP  of this model\n");
}

}  // namespace
}  // namespace semshare::client::ctl
