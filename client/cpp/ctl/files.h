// The files that put, find and read work with.
// Thread-safe: pure functions; a KvFile and an OutputFile are not thread-safe and own their
// streams.
#ifndef SEMSHARE_CLIENT_CPP_CTL_FILES_H_
#define SEMSHARE_CLIENT_CPP_CTL_FILES_H_

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/cpp/kv_rows.h"

namespace semshare::client::ctl {

// Token ids as decimal numbers, separated by blanks, line ends, commas or brackets (a JSON list is
// fine). INVALID_ARGUMENT naming the first word that is no id, or if there is none at all.
absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(const std::string& text);

// The same from a file; NOT_FOUND if it cannot be read.
absl::StatusOr<std::vector<uint32_t>> ReadTokenIds(const std::string& path);

absl::StatusOr<std::string> ReadTextFile(const std::string& path);

// A raw file of KV rows, [layer][plane][token][head][width], read where rows are asked for.
class KvFile {
 public:
  // INVALID_ARGUMENT if the file's size is not that of `tokens` tokens.
  static absl::StatusOr<KvFile> Open(const std::string& path, const KvShape& shape,
                                     uint32_t tokens);

  absl::Status Read(const RowRange& range, absl::Span<char> rows);

 private:
  KvFile() = default;

  std::ifstream stream_;
  std::string path_;
  KvShape shape_;
  // Where each plane of each layer begins.
  std::vector<std::vector<int64_t>> offsets_;
};

// Written beside its place and moved there by Commit(), so that a failed read leaves no half file;
// without Commit() nothing stays.
class OutputFile {
 public:
  static absl::StatusOr<OutputFile> Create(const std::string& path);
  OutputFile(OutputFile&&) = default;
  ~OutputFile();

  absl::Status Append(absl::Span<const char> bytes);
  absl::Status Commit();

 private:
  OutputFile() = default;

  // Open until the file is committed or given up.
  std::ofstream stream_;
  std::string path_;
  std::string partial_path_;
};

}  // namespace semshare::client::ctl

#endif  // SEMSHARE_CLIENT_CPP_CTL_FILES_H_
