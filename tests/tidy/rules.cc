#include "tests/tidy/rules.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <regex>
#include <set>

namespace semshare::tidy {
namespace {

// Files that may be longer than kMaxFileLines. Each entry needs its reason beside it.
const std::set<std::string>& LongFiles() {
  static const std::set<std::string> files = {};
  return files;
}

// Tests that cover several files, or behaviour of the whole: they mirror no single file.
const std::set<std::string>& TestsOfSeveralFiles() {
  static const std::set<std::string> files = {
      "tests/kernels/late_backend_test.cc",  // the backend of tests/testing/ that completes late
      "tests/storage/crash_test.cc",  // kill -9 under the store, the catalog and the disk tier
  };
  return files;
}

// Folders of tests/ that mirror nothing.
constexpr std::array<const char*, 5> kUnmirrored = {"tests/tidy/", "tests/testing/", "tests/bench/",
                                                    "tests/fuzz/", "tests/deploy/"};

std::string At(const SourceFile& file, int line, const std::string& message) {
  return file.path + ":" + std::to_string(line) + ": " + message;
}

bool IsCpp(const SourceFile& file) {
  for (const char* const ending : {".h", ".cc", ".cu", ".cuh"}) {
    if (EndsWith(file.path, ending)) return true;
  }
  return false;
}

bool IsHeader(const SourceFile& file) {
  return EndsWith(file.path, ".h") || EndsWith(file.path, ".cuh");
}

bool IsTest(const SourceFile& file) { return StartsWith(file.path, "tests/"); }

bool In(const SourceFile& file, const std::string& folder) { return StartsWith(file.path, folder); }

// The layer that a path belongs to, or "".
std::string LayerOf(const std::string& path) {
  for (const char* const layer : {"proto/", "kernels/", "storage/", "server/", "client/cpp/"}) {
    if (StartsWith(path, layer)) return layer;
  }
  return StartsWith(path, "client/") ? "client/" : "";
}

bool IsRpcHeader(const std::string& include) {
  return StartsWith(include, "grpc/") || StartsWith(include, "grpcpp/") ||
         StartsWith(include, "google/protobuf/") || StartsWith(include, "google/rpc/") ||
         EndsWith(include, ".pb.h");
}

bool IsCudaHeader(const std::string& include) {
  return StartsWith(include, "cuda") || StartsWith(include, "cublas") ||
         StartsWith(include, "cub/") || StartsWith(include, "thrust/");
}

bool MayUseRpc(const SourceFile& file) {
  return In(file, "proto/") || In(file, "client/cpp/") || In(file, "server/rpc/") ||
         In(file, "server/cluster/") || file.path == "server/main.cc";
}

// Why a file outside tests/ may not include a header; "" if it may.
std::string VendorComplaint(const SourceFile& file, const std::string& include) {
  if (IsRpcHeader(include) && !MayUseRpc(file)) {
    return "gRPC and generated headers belong in server/rpc/, server/cluster/ and client/cpp/";
  }
  // The layout of the shared-memory socket is plain structs.
  const bool plain = include == "proto/shm_wire.h";
  if (StartsWith(include, "proto/") && !plain && In(file, "server/") && !MayUseRpc(file)) {
    return "proto/ brings gRPC with it: include it in server/rpc/ and server/cluster/";
  }
  if (IsCudaHeader(include) && !In(file, "kernels/cuda/")) {
    return "CUDA headers belong in kernels/cuda/";
  }
  if (StartsWith(include, "rocksdb/") && !(In(file, "storage/") && EndsWith(file.path, ".cc"))) {
    return "rocksdb/ headers belong in one .cc of storage/";
  }
  const bool logs =
      In(file, "server/") || In(file, "client/cpp/ctl/") || In(file, "client/cpp/semsharectl");
  if (StartsWith(include, "spdlog/") && !logs) {
    return "spdlog belongs in server/ and semsharectl: libraries return, the binary logs";
  }
  // The process says how gRPC's mutexes behave; it uses none.
  if (StartsWith(include, "absl/synchronization/") && file.path != "server/main.cc") {
    return "use kernels/base/mutex.h: Debian's absl::Mutex is not instrumented";
  }
  return "";
}

struct BannedName {
  const char* name;
  const char* reason;
  bool in_tests;
};

constexpr std::array<BannedName, 10> kBannedNames = {{
    {"absl::Mutex", "use semshare::Mutex", true},
    {"absl::MutexLock", "use semshare::MutexLock", true},
    {"absl::CondVar", "use semshare::CondVar", true},
    {"absl::Notification", "use semshare::Mutex and CondVar", true},
    {"getenv", "configuration is an option struct and a flag", false},
    {"secure_getenv", "configuration is an option struct and a flag", false},
    {"std::mutex", "use semshare::Mutex, which carries annotations", false},
    {"std::shared_mutex", "use semshare::Mutex, which carries annotations", false},
    {"std::recursive_mutex", "use semshare::Mutex, which carries annotations", false},
    {"std::condition_variable", "use semshare::CondVar, which carries annotations", false},
}};

bool MayUse(const SourceFile& file, const std::string& name) {
  const bool standard_lock = StartsWith(name, "std::");
  return standard_lock && (file.path == "kernels/base/mutex.h" || In(file, "client/cpp/"));
}

std::string GuardOf(const std::string& path) {
  std::string guard = "SEMSHARE_";
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    guard += std::isalnum(byte) != 0 ? static_cast<char>(std::toupper(byte)) : '_';
  }
  return guard + "_";
}

// Whether tests/<base>_test.cc has a subject: <base>, or <base> without trailing words, which then
// name an aspect (chunk_store_concurrency_test.cc tests chunk_store.cc).
bool TestsSomething(std::string base, const std::set<std::string>& paths) {
  while (true) {
    if (paths.count(base + ".cc") + paths.count(base + ".h") + paths.count(base + ".cu") != 0) {
      return true;
    }
    const size_t word = base.find_last_of("_/");
    if (word == std::string::npos || base[word] == '/') return false;
    base.resize(word);
  }
}

// The namespace of a header, as its first line of that kind says.
std::string NamespaceOf(const std::string& text) {
  static const std::regex opening("(^|\\n)namespace ([A-Za-z_:0-9]+) \\{");
  std::smatch match;
  return std::regex_search(text, match, opening) ? match[2].str() : "";
}

// The name of a class or struct that stands in a namespace; "" for enums, specializations and
// whatever stands in a class.
std::string ClassName(const Block& type, const std::vector<Block>& all) {
  const bool inner = std::any_of(all.begin(), all.end(), [&](const Block& outer) {
    return outer.first_line < type.first_line && type.last_line <= outer.last_line;
  });
  static const std::regex name(
      "^(template ?<[^>]*> ?)?(class|struct) ([A-Za-z_0-9]+)( final)?( ?:.*)?$");
  std::smatch match;
  return !inner && std::regex_match(type.header, match, name) ? match[3].str() : "";
}

bool HasLine(const SourceFile& file, const std::string& wanted) {
  const std::vector<std::string> lines = SplitLines(file.text);
  return std::find(lines.begin(), lines.end(), wanted) != lines.end();
}

}  // namespace

Violations CheckColumns(const SourceFile& file) {
  Violations violations;
  int line = 0;
  for (const std::string& text : SplitLines(file.text)) {
    ++line;
    if (text.size() > kMaxColumns) {
      violations.push_back(At(file, line, std::to_string(text.size()) + " columns"));
    }
  }
  return violations;
}

Violations CheckAscii(const SourceFile& file) {
  Violations violations;
  int line = 0;
  for (const std::string& text : SplitLines(file.text)) {
    ++line;
    const bool ascii = std::all_of(text.begin(), text.end(), [](char c) {
      const auto byte = static_cast<unsigned char>(c);
      return (byte >= 0x20 && byte < 0x7f) || (byte == '\t');
    });
    if (!ascii) violations.push_back(At(file, line, "a character that is not printable ASCII"));
  }
  return violations;
}

Violations CheckNoToDo(const SourceFile& file) {
  Violations violations;
  const std::string mark = std::string("TO") + "DO";
  int line = 0;
  for (const std::string& text : SplitLines(file.text)) {
    ++line;
    if (ContainsWord(text, mark)) violations.push_back(At(file, line, mark + ": do it or drop it"));
  }
  return violations;
}

Violations CheckFileLength(const SourceFile& file) {
  if (!IsCpp(file) || LongFiles().count(file.path) != 0) return {};
  const size_t lines = SplitLines(file.text).size();
  if (lines <= kMaxFileLines) return {};
  return {At(file, kMaxFileLines + 1, std::to_string(lines) + " lines: split the file")};
}

Violations CheckFunctionLength(const SourceFile& file) {
  if (!IsCpp(file)) return {};
  Violations violations;
  for (const Block& function : FindBlocks(file.text).functions) {
    const int lines = function.last_line - function.first_line + 1;
    if (lines <= kMaxFunctionLines) continue;
    violations.push_back(
        At(file, function.first_line,
           std::to_string(lines) + " lines in the function " + function.header.substr(0, 60)));
  }
  return violations;
}

Violations CheckLayers(const SourceFile& file) {
  static const std::map<std::string, std::set<std::string>> sees = {
      {"proto/", {"proto/"}},
      {"kernels/", {"kernels/"}},
      {"storage/", {"kernels/", "storage/"}},
      {"server/", {"proto/", "kernels/", "storage/", "server/"}},
      {"client/cpp/", {"proto/", "client/cpp/"}},
  };
  const auto layer = sees.find(LayerOf(file.path));
  if (!IsCpp(file) || layer == sees.end()) return {};
  Violations violations;
  for (const Include& include : FindIncludes(file.text)) {
    const std::string other = LayerOf(include.path);
    const bool of_tests = StartsWith(include.path, "tests/");
    if (!of_tests && (other.empty() || layer->second.count(other) != 0)) continue;
    violations.push_back(At(file, include.line, layer->first + " must not see " + include.path));
  }
  return violations;
}

Violations CheckVendorHeaders(const SourceFile& file) {
  if (!IsCpp(file) || IsTest(file)) return {};
  Violations violations;
  for (const Include& include : FindIncludes(file.text)) {
    const std::string complaint = VendorComplaint(file, include.path);
    if (complaint.empty()) continue;
    violations.push_back(At(file, include.line, include.path + ": " + complaint));
  }
  return violations;
}

Violations CheckBannedNames(const SourceFile& file) {
  if (!IsCpp(file)) return {};
  Violations violations;
  int line = 0;
  for (const std::string& text : SplitLines(StripCommentsAndLiterals(file.text))) {
    ++line;
    for (const BannedName& banned : kBannedNames) {
      if (IsTest(file) && !banned.in_tests) continue;
      if (!ContainsWord(text, banned.name) || MayUse(file, banned.name)) continue;
      violations.push_back(At(file, line, std::string(banned.name) + ": " + banned.reason));
    }
  }
  return violations;
}

Violations CheckNoDeviceConditionals(const SourceFile& file) {
  const bool host_file = EndsWith(file.path, ".h") || EndsWith(file.path, ".cc");
  if (!host_file) return {};
  static const std::regex conditional("^\\s*#\\s*(if|ifdef|ifndef|elif)\\b.*CUDA");
  const bool guards_itself = In(file, "kernels/cuda/");
  Violations violations;
  int line = 0;
  for (const std::string& text : SplitLines(StripCommentsAndLiterals(file.text))) {
    ++line;
    if (!std::regex_search(text, conditional)) continue;
    // The include guard of a header in kernels/cuda/ names its folder.
    if (guards_itself && Contains(text, GuardOf(file.path))) continue;
    violations.push_back(At(file, line, "the device is chosen by a CMake source list"));
  }
  return violations;
}

Violations CheckLaunches(const SourceFile& file) {
  if (!EndsWith(file.path, ".cu")) return {};
  const std::vector<std::string> lines = SplitLines(StripCommentsAndLiterals(file.text));
  Violations violations;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!Contains(lines[i], "<<<")) continue;
    const size_t end = std::min(lines.size(), i + 1 + kMaxLinesToLaunchCheck);
    const bool checked = std::any_of(
        lines.begin() + static_cast<int64_t>(i), lines.begin() + static_cast<int64_t>(end),
        [](const std::string& line) { return Contains(line, "SEMSHARE_RETURN_IF_LAUNCH_FAILED"); });
    if (checked) continue;
    violations.push_back(At(file, static_cast<int>(i) + 1, "a launch without its check"));
  }
  return violations;
}

Violations CheckGuardedBy(const SourceFile& file) {
  if (!IsCpp(file) || IsTest(file)) return {};
  static const std::regex mutex("(^|[\\s:{;])(semshare::)?Mutex [A-Za-z_]+\\s*([;{]|ABSL_)");
  Violations violations;
  for (const Block& type : FindBlocks(file.text).classes) {
    if (!std::regex_search(type.members, mutex)) continue;
    if (Contains(type.members, "GUARDED_BY(")) continue;
    violations.push_back(
        At(file, type.first_line, type.header + " has a Mutex and no ABSL_GUARDED_BY"));
  }
  return violations;
}

Violations CheckHeader(const SourceFile& file) {
  if (!IsHeader(file)) return {};
  Violations violations;
  const std::string guard = GuardOf(file.path);
  // Highway includes an -inl.h once per instruction set, behind a guard of another form.
  const bool per_target = EndsWith(file.path, "-inl.h");
  const std::string opening = per_target ? "#ifdef " : "#ifndef ";
  if (!HasLine(file, opening + guard) || !HasLine(file, "#define " + guard)) {
    violations.push_back(At(file, 1, "the include guard must be " + guard));
  }
  if (!IsTest(file) && !Contains(FirstCommentBlock(file.text), "hread-safe")) {
    violations.push_back(
        At(file, 1, "the first comment must say \"thread-safe\" or \"Not thread-safe\""));
  }
  return violations;
}

Violations CheckOneRocksDbFile(const std::vector<SourceFile>& files) {
  Violations homes;
  for (const SourceFile& file : files) {
    if (!IsCpp(file)) continue;
    for (const Include& include : FindIncludes(file.text)) {
      if (!StartsWith(include.path, "rocksdb/")) continue;
      homes.push_back(At(file, include.line, "rocksdb/ is included by more than one file"));
      break;
    }
  }
  return homes.size() > 1 ? homes : Violations{};
}

Violations CheckClassNamesAreUnique(const std::vector<SourceFile>& files) {
  std::map<std::string, std::string> homes;
  Violations violations;
  for (const SourceFile& file : files) {
    if (!IsHeader(file)) continue;
    const std::string outer = NamespaceOf(file.text) + "::";
    const std::vector<Block> classes = FindBlocks(file.text).classes;
    for (const Block& type : classes) {
      const std::string name = ClassName(type, classes);
      if (name.empty()) continue;
      const auto [home, is_new] = homes.emplace(outer + name, file.path);
      if (is_new) continue;
      violations.push_back(
          At(file, type.first_line, outer + name + " is defined in " + home->second + ", too"));
    }
  }
  return violations;
}

Violations CheckTestsMirror(const std::vector<SourceFile>& files) {
  std::set<std::string> paths;
  for (const SourceFile& file : files) paths.insert(file.path);
  Violations violations;
  for (const SourceFile& file : files) {
    if (!IsTest(file) || !EndsWith(file.path, "_test.cc")) continue;
    const bool unmirrored = std::any_of(kUnmirrored.begin(), kUnmirrored.end(),
                                        [&](const char* folder) { return In(file, folder); });
    if (unmirrored || TestsOfSeveralFiles().count(file.path) != 0) continue;
    const size_t begin = std::string("tests/").size();
    const size_t length = file.path.size() - begin - std::string("_test.cc").size();
    const std::string base = file.path.substr(begin, length);
    if (TestsSomething(base, paths)) continue;
    violations.push_back(At(file, 1, "no " + base + ".cc or .h that it tests"));
  }
  return violations;
}

}  // namespace semshare::tidy
