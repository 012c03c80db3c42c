#include "client/cpp/ctl/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace semshare::client::ctl {
namespace {

using ::testing::ElementsAre;

class FilesTest : public ::testing::Test {
 protected:
  FilesTest() {
    std::string name = ::testing::TempDir() + "/ctl_files_XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~FilesTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << text;
    return folder_ + "/" + name;
  }

  std::string folder_;
};

TEST_F(FilesTest, TokenIdsComeInAnyUsualForm) {
  EXPECT_THAT(*ParseTokenIds("1 2\n3"), ElementsAre(1, 2, 3));
  EXPECT_THAT(*ParseTokenIds("[1, 2,\r\n 4294967295]"), ElementsAre(1, 2, 4294967295u));
  for (const char* text : {"", " \n", "1 x", "-1", "4294967296", "1.5"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseTokenIds(text).status())) << text;
  }
  EXPECT_THAT(*ReadTokenIds(Write("ids", "7 8")), ElementsAre(7, 8));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadTokenIds(Write("ids", "7 eight")).status()));
  EXPECT_TRUE(absl::IsNotFound(ReadTokenIds(folder_ + "/absent").status()));
}

TEST_F(FilesTest, KvFileFindsRows) {
  // Two layers, planes of 2 and 1 bytes, three tokens.
  const KvShape shape = UniformShape(2, {2, 1});
  const std::string path = Write("kv", "aabbccABCddeeffDEF");
  absl::StatusOr<KvFile> file = KvFile::Open(path, shape, 3);
  ASSERT_TRUE(file.ok()) << file.status();
  std::string rows(4, '\0');
  EXPECT_TRUE(file->Read({0, 0, 1, 2}, absl::MakeSpan(rows)).ok());
  EXPECT_EQ(rows, "bbcc");
  rows.resize(2);
  EXPECT_TRUE(file->Read({1, 1, 1, 2}, absl::MakeSpan(rows)).ok());
  EXPECT_EQ(rows, "EF");
  EXPECT_TRUE(absl::IsInvalidArgument(KvFile::Open(path, shape, 4).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(KvFile::Open(path, shape, 2).status()));
  EXPECT_TRUE(absl::IsNotFound(KvFile::Open(folder_ + "/absent", shape, 3).status()));
  std::filesystem::resize_file(path, 8);
  rows.resize(1);
  EXPECT_TRUE(absl::IsDataLoss(file->Read({1, 1, 0, 1}, absl::MakeSpan(rows))));
}

TEST_F(FilesTest, OutputAppearsWholeOrNotAtAll) {
  const std::string path = folder_ + "/out";
  {
    absl::StatusOr<OutputFile> file = OutputFile::Create(path);
    ASSERT_TRUE(file.ok());
    EXPECT_TRUE(file->Append(absl::MakeConstSpan("half", 4)).ok());
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  absl::StatusOr<OutputFile> file = OutputFile::Create(path);
  ASSERT_TRUE(file.ok());
  OutputFile moved = *std::move(file);
  EXPECT_TRUE(moved.Append(absl::MakeConstSpan("all", 3)).ok());
  EXPECT_TRUE(moved.Commit().ok());
  EXPECT_EQ(*ReadTextFile(path), "all");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
  EXPECT_FALSE(OutputFile::Create(folder_ + "/absent/out").ok());
}

}  // namespace
}  // namespace semshare::client::ctl
