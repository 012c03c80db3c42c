#include "client/cpp/ctl/table.h"

#include <algorithm>
#include <array>
#include <ostream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace semshare::client::ctl {
namespace {

constexpr size_t kGap = 2;

std::string Printable(std::string text) {
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return text;
}

// Characters on screen: bytes of UTF-8 that start one.
size_t Width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string Padded(const std::string& text, size_t width, Align align) {
  const std::string blanks(width - Width(text), ' ');
  return align == Align::kLeft ? text + blanks : blanks + text;
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::Add(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = Printable(std::move(cell));
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

void Table::Print(std::ostream& out) const {
  std::vector<std::vector<std::string>> lines(1);
  for (const Column& column : columns_) lines[0].push_back(column.title);
  lines.insert(lines.end(), rows_.begin(), rows_.end());
  std::vector<size_t> widths(columns_.size(), 0);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], Width(line[i]));
  }
  for (const auto& line : lines) {
    std::string text;
    for (size_t i = 0; i < line.size(); ++i) {
      if (i > 0) text.append(kGap, ' ');
      text += Padded(line[i], widths[i], columns_[i].align);
    }
    absl::StripTrailingAsciiWhitespace(&text);
    out << text << '\n';
  }
}

void Properties::Add(std::string name, std::string value) {
  lines_.emplace_back(std::move(name), Printable(std::move(value)));
}

void Properties::Print(std::ostream& out) const {
  size_t width = 0;
  for (const auto& [name, value] : lines_) width = std::max(width, Width(name));
  for (const auto& [name, value] : lines_) {
    std::string text = Padded(name, width + kGap, Align::kLeft) + value;
    absl::StripTrailingAsciiWhitespace(&text);
    out << text << '\n';
  }
}

std::string HumanBytes(uint64_t bytes) {
  constexpr std::array<const char*, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string HumanCount(uint64_t count) {
  const std::string digits = absl::StrCat(count);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

std::string HumanDuration(int64_t milliseconds) {
  constexpr int64_t kSecond = 1000;
  constexpr int64_t kMinute = 60 * kSecond;
  constexpr int64_t kHour = 60 * kMinute;
  constexpr int64_t kDay = 24 * kHour;
  struct Unit {
    int64_t size_ms;
    const char* name;
    int64_t part_ms;
    const char* part_name;
  };
  constexpr Unit kUnits[] = {
      {kDay, "d", kHour, "h"}, {kHour, "h", kMinute, "min"}, {kMinute, "min", kSecond, "s"}};
  for (const Unit& unit : kUnits) {
    if (milliseconds < unit.size_ms) continue;
    const int64_t parts = milliseconds % unit.size_ms / unit.part_ms;
    std::string text = absl::StrCat(milliseconds / unit.size_ms, " ", unit.name);
    if (parts > 0) absl::StrAppend(&text, " ", parts, " ", unit.part_name);
    return text;
  }
  if (milliseconds >= kSecond) return absl::StrCat(milliseconds / kSecond, " s");
  if (milliseconds > 0) return absl::StrCat(milliseconds, " ms");
  return "0 s";
}

std::string HumanTime(int64_t unix_ms, int64_t now_ms) {
  if (unix_ms == 0) return "-";
  const int64_t age_ms = now_ms - unix_ms;
  if (age_ms >= 1000) return absl::StrCat(HumanDuration(age_ms), " ago");
  if (age_ms <= -1000) return absl::StrCat("in ", HumanDuration(-age_ms));
  return "now";
}

std::string HumanShare(double share) { return absl::StrFormat("%.1f%%", share * 100); }

std::string Hex(const std::string& bytes, size_t max_bytes) {
  return absl::BytesToHexString(absl::string_view(bytes.data(), std::min(bytes.size(), max_bytes)));
}

std::string EnumText(const std::string& name, const std::string& prefix) {
  const bool prefixed = name.size() > prefix.size() && name.compare(0, prefix.size(), prefix) == 0;
  return absl::AsciiStrToLower(prefixed ? name.substr(prefix.size()) : name);
}

}  // namespace semshare::client::ctl
