// Text for people: aligned tables, sizes, times and ids.
// Thread-safe: pure functions; a Table is not thread-safe. Ownership: everything is copied.
#ifndef SEMSHARE_CLIENT_CPP_CTL_TABLE_H_
#define SEMSHARE_CLIENT_CPP_CTL_TABLE_H_

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace semshare::client::ctl {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kLeft;
};

// Columns as wide as their widest cell, two blanks apart, no blanks at a line's end. Control
// characters in cells are printed as '?', so that a name cannot steer the terminal.
class Table {
 public:
  explicit Table(std::vector<Column> columns);

  // REQUIRES: one cell per column.
  void Add(std::vector<std::string> cells);

  bool empty() const { return rows_.empty(); }

  void Print(std::ostream& out) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "name  value" lines, names aligned.
class Properties {
 public:
  void Add(std::string name, std::string value);
  void Print(std::ostream& out) const;

 private:
  std::vector<std::pair<std::string, std::string>> lines_;
};

// "0 B", "1.5 KiB", "2.0 GiB".
std::string HumanBytes(uint64_t bytes);

// "1,234,567".
std::string HumanCount(uint64_t count);

// Two units at most: "850 ms", "12 s", "3 min 20 s", "2 h 5 min", "4 d 1 h". Negative is "0 s".
std::string HumanDuration(int64_t milliseconds);

// "3 min 20 s ago", "in 2 h", "now", or "-" for time 0.
std::string HumanTime(int64_t unix_ms, int64_t now_ms);

// "12.3%".
std::string HumanShare(double share);

// Lower-case hexadecimal digits of the first `max_bytes` bytes.
std::string Hex(const std::string& bytes, size_t max_bytes = SIZE_MAX);

// "RESULT_KIND_EXACT_PREFIX" without its prefix, in lower case: "exact_prefix".
std::string EnumText(const std::string& name, const std::string& prefix);

}  // namespace semshare::client::ctl

#endif  // SEMSHARE_CLIENT_CPP_CTL_TABLE_H_
