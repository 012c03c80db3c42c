// The rules of the house that a compiler does not check: sizes, layers, banned names, headers. Each
// rule takes one file (the last three take all of them) and returns what it found, one line per
// violation, "path:line: message". tidy_test.cc runs every rule over the repository, and over a
// snippet that breaks it.
//
// Thread-safe: free functions of values.
#ifndef SEMSHARE_TESTS_TIDY_RULES_H_
#define SEMSHARE_TESTS_TIDY_RULES_H_

#include <string>
#include <vector>

#include "tests/tidy/source_text.h"

namespace semshare::tidy {

inline constexpr int kMaxFunctionLines = 70;
inline constexpr int kMaxFileLines = 500;
inline constexpr int kMaxColumns = 100;
inline constexpr int kMaxLinesToLaunchCheck = 3;

using Violations = std::vector<std::string>;

Violations CheckColumns(const SourceFile& file);
Violations CheckAscii(const SourceFile& file);
Violations CheckNoToDo(const SourceFile& file);
Violations CheckFileLength(const SourceFile& file);
Violations CheckFunctionLength(const SourceFile& file);

// proto/ and kernels/ include neither each other nor anything above; storage/ sees kernels/;
// server/ sees all three; client/cpp/ sees proto/.
Violations CheckLayers(const SourceFile& file);
// gRPC, protobuf, CUDA, RocksDB and spdlog headers have one home each.
Violations CheckVendorHeaders(const SourceFile& file);
Violations CheckBannedNames(const SourceFile& file);
// The device is chosen by CMake's source lists.
Violations CheckNoDeviceConditionals(const SourceFile& file);
// A launch is followed by its check, within kMaxLinesToLaunchCheck lines.
Violations CheckLaunches(const SourceFile& file);
// A class with a Mutex says what the mutex guards.
Violations CheckGuardedBy(const SourceFile& file);
// The guard is the path; the first comment block speaks of thread safety.
Violations CheckHeader(const SourceFile& file);

// RocksDB is included by one file only.
Violations CheckOneRocksDbFile(const std::vector<SourceFile>& files);
// No class name is defined in two headers: where both are in namespace semshare, the program has
// two definitions of one class, and the linker says nothing.
Violations CheckClassNamesAreUnique(const std::vector<SourceFile>& files);
// tests/<folder>/<file>_test.cc tests <folder>/<file>.cc or .h; <file>_<aspect>_test.cc may, too.
Violations CheckTestsMirror(const std::vector<SourceFile>& files);

}  // namespace semshare::tidy

#endif  // SEMSHARE_TESTS_TIDY_RULES_H_
