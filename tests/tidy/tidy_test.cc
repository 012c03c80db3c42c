// Runs every rule of rules.h over the repository, and over a snippet that breaks it, so that no
// rule is one that cannot fail.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tidy/rules.h"
#include "tests/tidy/source_text.h"

namespace semshare::tidy {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// What holds our sources. client/python is ruff's and mypy's.
constexpr std::array<const char*, 8> kFolders = {"proto",      "kernels", "storage", "server",
                                                 "client/cpp", "cmake",   "tests",   "deploy"};

bool IsOurs(const fs::path& path) {
  static const std::array<const char*, 8> endings = {".h",     ".cc",    ".cu", ".cuh",
                                                     ".proto", ".cmake", ".sh", ".txt"};
  const std::string ending = path.extension().string();
  const bool text = ending == ".txt" && path.filename() != "CMakeLists.txt";
  const auto* const found = std::find(endings.begin(), endings.end(), ending);
  return found != endings.end() && !text;
}

SourceFile ReadSource(const fs::path& root, const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(stream)),
                         std::istreambuf_iterator<char>());
  return {fs::relative(path, root).generic_string(), text};
}

const std::vector<SourceFile>& Repository() {
  static const auto* const files = [] {
    auto* const found = new std::vector<SourceFile>();
    const fs::path root = SEMSHARE_SOURCE_DIR;
    for (const char* const folder : kFolders) {
      if (!fs::is_directory(root / folder)) continue;
      for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
        if (!entry.is_regular_file() || !IsOurs(entry.path())) continue;
        found->push_back(ReadSource(root, entry.path()));
      }
    }
    std::sort(found->begin(), found->end(),
              [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
    return found;
  }();
  return *files;
}

using FileRule = Violations (*)(const SourceFile&);

struct NamedRule {
  const char* name;
  FileRule rule;
};

// GoogleTest finds it by this name.
void PrintTo(const NamedRule& rule, std::ostream* stream) { *stream << rule.name; }

constexpr std::array<NamedRule, 12> kFileRules = {{
    {"Columns", CheckColumns},
    {"Ascii", CheckAscii},
    {"NoToDo", CheckNoToDo},
    {"FileLength", CheckFileLength},
    {"FunctionLength", CheckFunctionLength},
    {"Layers", CheckLayers},
    {"VendorHeaders", CheckVendorHeaders},
    {"BannedNames", CheckBannedNames},
    {"NoDeviceConditionals", CheckNoDeviceConditionals},
    {"Launches", CheckLaunches},
    {"GuardedBy", CheckGuardedBy},
    {"Header", CheckHeader},
}};

std::string Joined(const Violations& violations) {
  std::string joined;
  for (const std::string& violation : violations) joined += "\n  " + violation;
  return joined;
}

class RepositoryTest : public ::testing::TestWithParam<NamedRule> {};

TEST_P(RepositoryTest, HoldsTheRule) {
  Violations violations;
  for (const SourceFile& file : Repository()) {
    for (std::string& violation : GetParam().rule(file)) violations.push_back(std::move(violation));
  }
  EXPECT_TRUE(violations.empty()) << Joined(violations);
}

INSTANTIATE_TEST_SUITE_P(Rules, RepositoryTest, ::testing::ValuesIn(kFileRules),
                         [](const auto& param) { return std::string(param.param.name); });

TEST(RepositoryFiles, AreFound) {
  // Guards against a wrong folder, with which every rule would hold.
  EXPECT_GT(Repository().size(), 30U);
}

TEST(RepositoryFiles, RocksDbHasOneHome) {
  const Violations violations = CheckOneRocksDbFile(Repository());
  EXPECT_TRUE(violations.empty()) << Joined(violations);
}

TEST(RepositoryFiles, TestsMirrorTheTree) {
  const Violations violations = CheckTestsMirror(Repository());
  EXPECT_TRUE(violations.empty()) << Joined(violations);
}

TEST(RepositoryFiles, ClassNamesAreUnique) {
  const Violations violations = CheckClassNamesAreUnique(Repository());
  EXPECT_TRUE(violations.empty()) << Joined(violations);
}

std::string Repeat(const std::string& text, int times) {
  std::string repeated;
  for (int i = 0; i < times; ++i) repeated += text;
  return repeated;
}

TEST(ColumnsRule, FailsAboveTheLimit) {
  EXPECT_THAT(CheckColumns({"storage/a.cc", std::string(100, 'x') + "\n"}), IsEmpty());
  EXPECT_THAT(CheckColumns({"storage/a.cc", "\n" + std::string(101, 'x') + "\n"}),
              ElementsAre(HasSubstr("storage/a.cc:2: 101 columns")));
}

TEST(AsciiRule, FailsOnOtherBytes) {
  EXPECT_THAT(CheckAscii({"storage/a.cc", "int a;\tint b;\n"}), IsEmpty());
  EXPECT_THAT(CheckAscii({"storage/a.cc", "// caf\xc3\xa9\n"}), SizeIs(1));
  EXPECT_THAT(CheckAscii({"storage/a.cc", "int a;\r\n"}), SizeIs(1));
}

TEST(NoToDoRule, FailsOnTheWordOnly) {
  const std::string mark = std::string("TO") + "DO";
  EXPECT_THAT(CheckNoToDo({"storage/a.cc", "// " + mark + "(x): later\n"}), SizeIs(1));
  EXPECT_THAT(CheckNoToDo({"storage/a.cc", "int " + mark + "S = 1;\n"}), IsEmpty());
}

TEST(FileLengthRule, FailsAboveTheLimit) {
  EXPECT_THAT(CheckFileLength({"storage/a.cc", Repeat("\n", 500)}), IsEmpty());
  EXPECT_THAT(CheckFileLength({"storage/a.cc", Repeat("\n", 501)}), SizeIs(1));
  EXPECT_THAT(CheckFileLength({"deploy/a.sh", Repeat("\n", 501)}), IsEmpty());
}

Violations LengthOf(const std::string& before, int body_lines, const std::string& after) {
  return CheckFunctionLength({"storage/a.cc", before + Repeat("  x();\n", body_lines) + after});
}

TEST(FunctionLengthRule, FailsAboveTheLimit) {
  EXPECT_THAT(LengthOf("void F() {\n", 68, "}\n"), IsEmpty());
  EXPECT_THAT(LengthOf("void F() {\n", 69, "}\n"), SizeIs(1));
  EXPECT_THAT(LengthOf("void F(\n    int a = 3)\n{\n", 68, "}\n"), SizeIs(1));
}

TEST(FunctionLengthRule, FindsEveryKindOfFunction) {
  EXPECT_THAT(LengthOf("namespace a {\nclass B {\n  void F() const override {\n", 80, "}\n};\n}\n"),
              SizeIs(1));
  EXPECT_THAT(LengthOf("B::B(int x) : a_{x}, b_(1) {\n", 80, "}\n"), SizeIs(1));
  EXPECT_THAT(LengthOf("bool operator==(const A& a) {\n", 80, "}\n"), SizeIs(1));
  EXPECT_THAT(LengthOf("template <typename T, int kN = 3>\nT F(T a) {\n", 80, "}\n"), SizeIs(1));
  EXPECT_THAT(LengthOf("TEST(A, B) {\n", 80, "}\n"), SizeIs(1));
  EXPECT_THAT(LengthOf("struct A {\n enum class E : int { kA };\n int F() {\n", 80, "}\n};\n"),
              SizeIs(1));
}

TEST(FunctionLengthRule, LeavesTablesAndTypesAlone) {
  EXPECT_THAT(CheckFunctionLength({"a.cc", "const int k[] = {\n" + Repeat("  1,\n", 90) + "};\n"}),
              IsEmpty());
  EXPECT_THAT(CheckFunctionLength({"a.cc", "class A {\n" + Repeat("  int F();\n", 90) + "};\n"}),
              IsEmpty());
  EXPECT_THAT(CheckFunctionLength({"a.cc", "namespace a {\n" + Repeat("int F();\n", 90) + "}\n"}),
              IsEmpty());
}

TEST(FunctionLengthRule, IsNotFooledByBracesInText) {
  const std::string tricks =
      "  s = \"}\"; c = '}'; // }\n  /* } */ n = 1'000;\n"
      "  r = R\"(}})\";\n#define M(x) { x\n";
  EXPECT_THAT(LengthOf("void F() {\n" + tricks, 64, "}\nvoid G() { }\n"), IsEmpty());
  EXPECT_THAT(LengthOf("void F() {\n" + tricks, 66, "}\nvoid G() { }\n"), SizeIs(1));
}

Violations LayersOf(const std::string& path, const std::string& include) {
  return CheckLayers({path, "#include \"" + include + "\"\n"});
}

TEST(LayersRule, FailsOnUpwardAndSidewaysIncludes) {
  EXPECT_THAT(LayersOf("kernels/a.cc", "proto/rpc_status.h"), SizeIs(1));
  EXPECT_THAT(LayersOf("proto/a.cc", "kernels/backend.h"), SizeIs(1));
  EXPECT_THAT(LayersOf("kernels/a.cc", "storage/ids.h"), SizeIs(1));
  EXPECT_THAT(LayersOf("storage/a.h", "server/model.h"), SizeIs(1));
  EXPECT_THAT(LayersOf("storage/a.h", "proto/rpc_status.h"), SizeIs(1));
  EXPECT_THAT(LayersOf("client/cpp/a.cc", "server/model.h"), SizeIs(1));
  EXPECT_THAT(LayersOf("client/cpp/a.cc", "kernels/dtype.h"), SizeIs(1));
  EXPECT_THAT(LayersOf("server/a.cc", "client/cpp/client.h"), SizeIs(1));
  EXPECT_THAT(LayersOf("server/a.cc", "tests/testing/fake.h"), SizeIs(1));
}

TEST(LayersRule, AllowsDownwardIncludes) {
  EXPECT_THAT(LayersOf("storage/a.cc", "kernels/backend.h"), IsEmpty());
  EXPECT_THAT(LayersOf("server/a.cc", "storage/ids.h"), IsEmpty());
  EXPECT_THAT(LayersOf("client/cpp/a.cc", "proto/rpc_status.h"), IsEmpty());
  EXPECT_THAT(LayersOf("kernels/a.cc", "absl/status/status.h"), IsEmpty());
  EXPECT_THAT(LayersOf("tests/server/a.cc", "client/cpp/client.h"), IsEmpty());
  EXPECT_THAT(CheckLayers({"kernels/a.cc", "// #include \"server/model.h\"\n"}), IsEmpty());
}

Violations VendorOf(const std::string& path, const std::string& include) {
  return CheckVendorHeaders({path, "#include <" + include + ">\n"});
}

TEST(VendorHeadersRule, FailsOutsideOfTheirHome) {
  EXPECT_THAT(VendorOf("server/match/a.cc", "grpcpp/grpcpp.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("server/a.h", "semshare/v1/model.pb.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("server/a.h", "proto/rpc_status.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("server/a.h", "proto/shm_wire.h"), IsEmpty());
  EXPECT_THAT(VendorOf("storage/a.cc", "google/protobuf/message.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("kernels/cpu/a.cc", "cuda_runtime.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("server/a.cc", "rocksdb/db.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("storage/a.h", "rocksdb/db.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("storage/a.cc", "spdlog/spdlog.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("client/cpp/client.cc", "spdlog/spdlog.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("kernels/a.cc", "absl/synchronization/mutex.h"), SizeIs(1));
  EXPECT_THAT(VendorOf("server/main.cc", "absl/synchronization/mutex.h"), IsEmpty());
}

TEST(VendorHeadersRule, AllowsTheirHome) {
  EXPECT_THAT(VendorOf("server/rpc/a.cc", "grpcpp/grpcpp.h"), IsEmpty());
  EXPECT_THAT(VendorOf("server/main.cc", "grpcpp/grpcpp.h"), IsEmpty());
  EXPECT_THAT(VendorOf("client/cpp/a.h", "semshare/v1/model.pb.h"), IsEmpty());
  EXPECT_THAT(VendorOf("kernels/cuda/a.cc", "cuda_runtime.h"), IsEmpty());
  EXPECT_THAT(VendorOf("storage/a.cc", "rocksdb/db.h"), IsEmpty());
  EXPECT_THAT(VendorOf("server/ops/a.cc", "spdlog/spdlog.h"), IsEmpty());
  EXPECT_THAT(VendorOf("client/cpp/semsharectl.cc", "spdlog/spdlog.h"), IsEmpty());
  EXPECT_THAT(VendorOf("client/cpp/ctl/table.cc", "spdlog/spdlog.h"), IsEmpty());
  EXPECT_THAT(VendorOf("tests/server/rpc/a.cc", "grpcpp/grpcpp.h"), IsEmpty());
}

TEST(BannedNamesRule, FailsOnEachName) {
  EXPECT_THAT(CheckBannedNames({"server/a.cc", "absl::Mutex m;\n"}), SizeIs(1));
  EXPECT_THAT(CheckBannedNames({"tests/server/a_test.cc", "absl::Notification n;\n"}), SizeIs(1));
  EXPECT_THAT(CheckBannedNames({"server/main.cc", "x = std::getenv(\"HOME\");\n"}), SizeIs(1));
  EXPECT_THAT(CheckBannedNames({"storage/a.h", "std::mutex m;\n"}), SizeIs(1));
}

TEST(BannedNamesRule, KnowsExceptionsAndComments) {
  EXPECT_THAT(CheckBannedNames({"kernels/base/mutex.h", "std::mutex m;\n"}), IsEmpty());
  EXPECT_THAT(CheckBannedNames({"client/cpp/a.cc", "std::mutex m;\n"}), IsEmpty());
  EXPECT_THAT(CheckBannedNames({"tests/server/a_test.cc", "std::mutex m;\n"}), IsEmpty());
  EXPECT_THAT(CheckBannedNames({"storage/a.h", "// absl::Mutex is not used.\n"}), IsEmpty());
  EXPECT_THAT(CheckBannedNames({"client/cpp/a.cc", "absl::Mutex m;\n"}), SizeIs(1));
}

TEST(LaunchesRule, FailsWithoutACheckNearby) {
  const std::string launch = "  Kernel<<<1, 2, 0, stream>>>(\n      a);\n";
  const std::string check = "  SEMSHARE_RETURN_IF_LAUNCH_FAILED(\"Kernel\");\n";
  EXPECT_THAT(CheckLaunches({"kernels/cuda/a.cu", launch}), SizeIs(1));
  EXPECT_THAT(CheckLaunches({"kernels/cuda/a.cu", launch + "\n\n" + check}), SizeIs(1));
  EXPECT_THAT(CheckLaunches({"kernels/cuda/a.cu", launch + launch + check}), SizeIs(1));
  EXPECT_THAT(CheckLaunches({"kernels/cuda/a.cu", launch + check}), IsEmpty());
  EXPECT_THAT(CheckLaunches({"kernels/cuda/a.cu", "// a<<<b>>>\n"}), IsEmpty());
}

TEST(NoDeviceConditionalsRule, FailsOnAnyForm) {
  for (const char* const line : {"#ifdef USE_CUDA\n", "#if defined(WITH_CUDA)\n", "# ifndef CUDA\n",
                                 "#if 1\n#elif HAVE_CUDA\n"}) {
    EXPECT_THAT(CheckNoDeviceConditionals({"kernels/a.cc", line}), SizeIs(1)) << line;
  }
  EXPECT_THAT(CheckNoDeviceConditionals({"kernels/cuda/a.cu", "#ifdef __CUDA_ARCH__\n"}),
              IsEmpty());
  EXPECT_THAT(
      CheckNoDeviceConditionals({"kernels/cuda/a.h", "#ifndef SEMSHARE_KERNELS_CUDA_A_H_\n"}),
      IsEmpty());
}

TEST(GuardedByRule, FailsPerClass) {
  const std::string bare = "class A {\n void F() { x(); }\n mutable Mutex mutex_;\n int a_;\n};\n";
  const std::string annotated =
      "class B {\n Mutex mutex_;\n int b_ ABSL_GUARDED_BY(mutex_) = 0;\n};\n";
  EXPECT_THAT(CheckGuardedBy({"storage/a.h", bare + annotated}),
              ElementsAre(HasSubstr("storage/a.h:1: class A has a Mutex")));
  EXPECT_THAT(CheckGuardedBy({"storage/a.h", annotated}), IsEmpty());
  EXPECT_THAT(CheckGuardedBy({"storage/a.h", "class C {\n Mutex* const mutex_;\n};\n"}), IsEmpty());
  // The inner class's annotation does not count for the outer one.
  EXPECT_THAT(CheckGuardedBy({"storage/a.h", "class D {\n" + annotated + " Mutex mutex_;\n};\n"}),
              ElementsAre(HasSubstr("class D has a Mutex")));
}

TEST(HeaderRule, FailsOnGuardAndComment) {
  const std::string guard =
      "#ifndef SEMSHARE_STORAGE_A_H_\n#define SEMSHARE_STORAGE_A_H_\n#endif\n";
  EXPECT_THAT(CheckHeader({"storage/a.h", "// Ids. Thread-safe: values.\n" + guard}), IsEmpty());
  EXPECT_THAT(CheckHeader({"storage/a.h", "// Ids.\n" + guard}), SizeIs(1));
  EXPECT_THAT(CheckHeader({"storage/a.h", "// Ids.\n\n// Not thread-safe.\n" + guard}), SizeIs(1));
  EXPECT_THAT(CheckHeader({"storage/b.h", "// Ids. Not thread-safe.\n" + guard}), SizeIs(1));
  EXPECT_THAT(CheckHeader({"storage/a.h", "// Ids. Not thread-safe.\n#pragma once\n"}), SizeIs(1));
  const std::string per_target =
      "// Thread-safe.\n#ifdef SEMSHARE_KERNELS_A_INL_H_\n#define SEMSHARE_KERNELS_A_INL_H_\n";
  EXPECT_THAT(CheckHeader({"kernels/a-inl.h", per_target}), IsEmpty());
  EXPECT_THAT(CheckHeader({"kernels/b-inl.h", per_target}), SizeIs(1));
}

TEST(OneRocksDbFileRule, FailsOnTheSecond) {
  const SourceFile one = {"storage/a.cc", "#include <rocksdb/db.h>\n#include <rocksdb/env.h>\n"};
  const SourceFile two = {"storage/b.cc", "#include \"rocksdb/db.h\"\n"};
  EXPECT_THAT(CheckOneRocksDbFile({one}), IsEmpty());
  EXPECT_THAT(CheckOneRocksDbFile({one, two}), SizeIs(2));
}

TEST(ClassNamesRule, FailsOnTheSecondHeader) {
  const std::string pool =
      "namespace semshare {\nclass Pool;\nclass Pool final : public A {\n};\n}";
  const SourceFile one = {"storage/a.h", pool};
  EXPECT_THAT(CheckClassNamesAreUnique({one}), IsEmpty());
  EXPECT_THAT(CheckClassNamesAreUnique({one, {"server/b.h", pool}}),
              ElementsAre(HasSubstr("server/b.h:3: semshare::Pool is defined in storage/a.h")));
  EXPECT_THAT(CheckClassNamesAreUnique({one, {"server/b.cc", pool}}), IsEmpty());
  // Neither a declaration, nor an inner class, nor another namespace.
  for (const char* const text : {"namespace semshare {\nclass Pool;\n}",
                                 "namespace semshare {\nclass B {\n  class Pool {\n  };\n};\n}",
                                 "namespace semshare::tidy {\nclass Pool {\n};\n}"}) {
    EXPECT_THAT(CheckClassNamesAreUnique({one, {"server/b.h", text}}), IsEmpty()) << text;
  }
}

TEST(TestsMirrorRule, FailsOnATestOfNothing) {
  const SourceFile test = {"tests/client/cpp/a_test.cc", ""};
  EXPECT_THAT(CheckTestsMirror({test}), ElementsAre(HasSubstr("no client/cpp/a.cc")));
  EXPECT_THAT(CheckTestsMirror({test, {"client/cpp/a.cc", ""}}), IsEmpty());
  EXPECT_THAT(CheckTestsMirror({test, {"client/cpp/a.h", ""}}), IsEmpty());
  EXPECT_THAT(CheckTestsMirror({{"tests/tidy/tidy_test.cc", ""}}), IsEmpty());
  const SourceFile aspect = {"tests/client/cpp/a_under_load_test.cc", ""};
  EXPECT_THAT(CheckTestsMirror({aspect}), SizeIs(1));
  EXPECT_THAT(CheckTestsMirror({aspect, {"client/cpp/a.cc", ""}}), IsEmpty());
  EXPECT_THAT(CheckTestsMirror({aspect, {"client/cpp/under.cc", ""}}), SizeIs(1));
}

}  // namespace
}  // namespace semshare::tidy
