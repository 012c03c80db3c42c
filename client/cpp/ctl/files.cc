#include "client/cpp/ctl/files.h"

#include <unistd.h>

#include <cstdio>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace semshare::client::ctl {

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  if (!stream || !(text << stream.rdbuf())) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read or is empty"));
  }
  return text.str();
}

absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(const std::string& text) {
  std::vector<uint32_t> ids;
  for (const absl::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(" \t\r\n,[]"), absl::SkipEmpty())) {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(word, &id)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", word.substr(0, 32), "' (word ", ids.size() + 1, ") is no token id"));
    }
    ids.push_back(id);
  }
  if (ids.empty()) return absl::InvalidArgumentError("no token ids");
  return ids;
}

absl::StatusOr<std::vector<uint32_t>> ReadTokenIds(const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<std::vector<uint32_t>> ids = ParseTokenIds(*text);
  if (!ids.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", ids.status().message()));
  }
  return ids;
}

absl::StatusOr<KvFile> KvFile::Open(const std::string& path, const KvShape& shape,
                                    uint32_t tokens) {
  KvFile file;
  file.path_ = path;
  file.shape_ = shape;
  file.stream_.open(path, std::ios::binary | std::ios::ate);
  if (!file.stream_) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  const int64_t file_bytes = file.stream_.tellg();
  int64_t offset = 0;
  for (const std::vector<int64_t>& planes : shape.row_bytes) {
    std::vector<int64_t>& offsets = file.offsets_.emplace_back();
    for (const int64_t row_bytes : planes) {
      offsets.push_back(offset);
      offset += row_bytes * tokens;
    }
  }
  if (file_bytes != offset) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", file_bytes, " bytes, but ", tokens,
                                                   " tokens of this model have ", offset));
  }
  return file;
}

absl::Status KvFile::Read(const RowRange& range, absl::Span<char> rows) {
  const int64_t row_bytes = shape_.row_bytes[range.layer][range.plane];
  stream_.seekg(offsets_[range.layer][range.plane] + range.begin * row_bytes);
  stream_.read(rows.data(), static_cast<std::streamsize>(rows.size()));
  if (!stream_) return absl::DataLossError(absl::StrCat(path_, ": ends early"));
  return absl::OkStatus();
}

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path) {
  OutputFile file;
  file.path_ = path;
  file.partial_path_ = absl::StrCat(path, ".partial.", getpid());
  file.stream_.open(file.partial_path_, std::ios::binary | std::ios::trunc);
  if (!file.stream_) {
    return absl::PermissionDeniedError(absl::StrCat(file.partial_path_, ": cannot be written"));
  }
  return file;
}

OutputFile::~OutputFile() {
  if (!stream_.is_open()) return;
  stream_.close();
  std::remove(partial_path_.c_str());
}

absl::Status OutputFile::Append(absl::Span<const char> bytes) {
  stream_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!stream_) {
    return absl::ResourceExhaustedError(absl::StrCat(partial_path_, ": cannot be written"));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Commit() {
  stream_.close();
  if (!stream_ || std::rename(partial_path_.c_str(), path_.c_str()) != 0) {
    std::remove(partial_path_.c_str());
    return absl::ResourceExhaustedError(absl::StrCat(path_, ": cannot be written"));
  }
  return absl::OkStatus();
}

}  // namespace semshare::client::ctl
