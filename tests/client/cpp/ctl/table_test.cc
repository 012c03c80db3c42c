#include "client/cpp/ctl/table.h"

#include <gtest/gtest.h>

#include <sstream>

namespace semshare::client::ctl {
namespace {

TEST(TableTest, ColumnsAreAsWideAsTheirWidestCell) {
  Table table({{"NAME"}, {"TOKENS", Align::kRight}, {"STATE"}});
  table.Add({"a", "12", "durable"});
  table.Add({"a longer name", "1,234,567", ""});
  table.Add({"z\xc3\xa9ro", "0", "memory"});
  std::ostringstream out;
  table.Print(out);
  EXPECT_EQ(out.str(),
            "NAME              TOKENS  STATE\n"
            "a                     12  durable\n"
            "a longer name  1,234,567\n"
            "z\xc3\xa9ro                   0  memory\n");
}

TEST(TableTest, WithoutRowsTheTitlesRemain) {
  Table table({{"ID"}, {"TOKENS", Align::kRight}});
  std::ostringstream out;
  table.Print(out);
  EXPECT_EQ(out.str(), "ID  TOKENS\n");
}

TEST(TableTest, ControlCharactersDoNotReachTheTerminal) {
  Table table({{"ALIAS"}});
  table.Add({"\x1b[31mred\n"});
  Properties lines;
  lines.Add("alias", "a\tb");
  std::ostringstream out;
  table.Print(out);
  lines.Print(out);
  EXPECT_EQ(out.str(), "ALIAS\n?[31mred?\nalias  a?b\n");
}

TEST(PropertiesTest, NamesAreAligned) {
  Properties lines;
  lines.Add("id", "00ff");
  lines.Add("in memory", "1.5 KiB");
  std::ostringstream out;
  lines.Print(out);
  EXPECT_EQ(out.str(), "id         00ff\nin memory  1.5 KiB\n");
}

TEST(HumanTest, Bytes) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1024), "1.0 KiB");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(HumanBytes(uint64_t{5} << 30), "5.0 GiB");
  EXPECT_EQ(HumanBytes(UINT64_MAX), "16.0 EiB");
}

TEST(HumanTest, Counts) {
  EXPECT_EQ(HumanCount(0), "0");
  EXPECT_EQ(HumanCount(999), "999");
  EXPECT_EQ(HumanCount(1000), "1,000");
  EXPECT_EQ(HumanCount(123456), "123,456");
  EXPECT_EQ(HumanCount(1234567), "1,234,567");
}

TEST(HumanTest, DurationsAndTimes) {
  EXPECT_EQ(HumanDuration(-5), "0 s");
  EXPECT_EQ(HumanDuration(850), "850 ms");
  EXPECT_EQ(HumanDuration(12'999), "12 s");
  EXPECT_EQ(HumanDuration(200'000), "3 min 20 s");
  EXPECT_EQ(HumanDuration(120'000), "2 min");
  EXPECT_EQ(HumanDuration(7'500'000), "2 h 5 min");
  EXPECT_EQ(HumanDuration(349'200'000), "4 d 1 h");
  EXPECT_EQ(HumanTime(0, 1'000'000), "-");
  EXPECT_EQ(HumanTime(1'000'000, 1'000'500), "now");
  EXPECT_EQ(HumanTime(1'000'000, 1'200'000), "3 min 20 s ago");
  EXPECT_EQ(HumanTime(1'060'000, 1'000'000), "in 1 min");
}

TEST(HumanTest, IdsSharesAndEnums) {
  EXPECT_EQ(Hex(std::string("\x00\xab\x10", 3)), "00ab10");
  EXPECT_EQ(Hex("\xab\xcd\xef", 2), "abcd");
  EXPECT_EQ(HumanShare(0.0625), "6.2%");
  EXPECT_EQ(EnumText("RESULT_KIND_EXACT_PREFIX", "RESULT_KIND_"), "exact_prefix");
  EXPECT_EQ(EnumText("", "RESULT_KIND_"), "");
}

}  // namespace
}  // namespace semshare::client::ctl
