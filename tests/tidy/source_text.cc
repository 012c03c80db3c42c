#include "tests/tidy/source_text.h"

#include <cctype>
#include <utility>

namespace semshare::tidy {
namespace {

bool IsIdentifier(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// Copies text while blanking what is not code.
class Stripper {
 public:
  explicit Stripper(const std::string& text) : text_(text) { out_.reserve(text.size()); }

  std::string Run() {
    while (at_ < text_.size()) Step();
    return std::move(out_);
  }

 private:
  bool At(const std::string& part) const { return text_.compare(at_, part.size(), part) == 0; }

  void Step() {
    if (At("//")) {
      BlankUntil(text_.find('\n', at_));
    } else if (At("/*")) {
      const size_t end = text_.find("*/", at_ + 2);
      BlankUntil(end == std::string::npos ? end : end + 2);
    } else if (At("R\"") && !AfterIdentifier()) {
      RawString();
    } else if (text_[at_] == '"' || (text_[at_] == '\'' && !AfterIdentifier())) {
      Literal(text_[at_]);
    } else {
      out_ += text_[at_++];
    }
  }

  // A quote after an identifier character separates digits, as in 1'000.
  bool AfterIdentifier() const { return at_ > 0 && IsIdentifier(text_[at_ - 1]); }

  void BlankUntil(size_t end) {
    if (end == std::string::npos) end = text_.size();
    for (; at_ < end; ++at_) out_ += text_[at_] == '\n' ? '\n' : ' ';
  }

  void RawString() {
    const size_t open = text_.find('(', at_);
    if (open == std::string::npos) return BlankUntil(open);
    std::string close = ")";
    close.append(text_, at_ + 2, open - at_ - 2).append("\"");
    const size_t end = text_.find(close, open);
    BlankUntil(end == std::string::npos ? end : end + close.size());
  }

  void Literal(char quote) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote && text_[end] != '\n') {
      end += text_[end] == '\\' ? 2 : 1;
    }
    out_ += quote;
    ++at_;
    BlankUntil(end);
    if (at_ < text_.size() && text_[at_] == quote) {
      out_ += quote;
      ++at_;
    }
  }

  const std::string& text_;
  std::string out_;
  size_t at_ = 0;
};

// Blanks preprocessor lines with their continuations: a macro's braces need not match.
std::string BlankPreprocessor(const std::string& stripped) {
  std::string out;
  bool continued = false;
  for (const std::string& line : SplitLines(stripped)) {
    const size_t first = line.find_first_not_of(" \t");
    const bool directive = continued || (first != std::string::npos && line[first] == '#');
    continued = directive && EndsWith(line, "\\");
    out += directive ? std::string() : line;
    out += '\n';
  }
  return out;
}

std::string Squeeze(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool space = std::isspace(static_cast<unsigned char>(c)) != 0;
    if (!space) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  while (EndsWith(out, " ")) out.pop_back();
  return out;
}

// Drops "template <...>" in front.
std::string WithoutTemplate(const std::string& header) {
  if (!StartsWith(header, "template")) return header;
  const size_t open = header.find('<');
  int depth = 0;
  for (size_t i = open; i < header.size(); ++i) {
    if (header[i] == '<') ++depth;
    if (header[i] == '>' && --depth == 0) return WithoutTemplate(Squeeze(header.substr(i + 1)));
  }
  return header;
}

// Whether '=' stands outside of parentheses, which makes the header an initialiser.
bool IsInitialiser(const std::string& header) {
  if (Contains(header, "operator")) return false;
  int depth = 0;
  for (const char c : header) {
    if (c == '(' || c == '<') ++depth;
    if (c == ')' || c == '>') --depth;
    if (c == '=' && depth <= 0) return true;
  }
  return false;
}

enum class Scope { kNamespace, kClass, kFunction, kOther };

Scope Classify(const std::string& full_header) {
  const std::string header = WithoutTemplate(full_header);
  if (ContainsWord(header, "namespace") || StartsWith(header, "extern \"")) {
    return Scope::kNamespace;
  }
  for (const char* const word : {"class ", "struct ", "union ", "enum "}) {
    if (StartsWith(header, word)) return word[0] == 'e' ? Scope::kOther : Scope::kClass;
  }
  return Contains(header, "(") && !IsInitialiser(header) ? Scope::kFunction : Scope::kOther;
}

// Walks over stripped text and keeps the stack of open braces.
class BlockFinder {
 public:
  explicit BlockFinder(std::string text) : text_(std::move(text)) {}

  Blocks Run() {
    for (const char c : text_) Step(c);
    return std::move(blocks_);
  }

 private:
  struct Open {
    Scope scope;
    Block block;
  };

  bool Inside(Scope scope) const {
    for (const Open& open : open_) {
      if (open.scope == scope) return true;
    }
    return false;
  }

  void Step(char c) {
    if (c == '\n') ++line_;
    if (c == '{') {
      OpenBrace();
    } else if (c == '}') {
      CloseBrace();
    } else if (c == ';' || (c == ':' && IsAccess())) {
      EndStatement(c);
    } else {
      const bool space = std::isspace(static_cast<unsigned char>(c)) != 0;
      if (header_.empty() && space) return;
      if (header_.empty()) header_line_ = line_;
      header_ += c;
    }
  }

  bool IsAccess() const {
    return header_ == "public" || header_ == "private" || header_ == "protected";
  }

  void OpenBrace() {
    const std::string header = Squeeze(header_);
    const bool in_body = Inside(Scope::kFunction) || Inside(Scope::kOther);
    Open open;
    open.scope = in_body ? Scope::kOther : Classify(header);
    open.block.header = header;
    open.block.first_line = header_.empty() ? line_ : header_line_;
    // A member with a brace initialiser is still a member.
    if (!open_.empty()) open_.back().block.members += header + "{ ";
    open_.push_back(open);
    header_.clear();
  }

  void CloseBrace() {
    header_.clear();
    if (open_.empty()) return;
    Open open = std::move(open_.back());
    open_.pop_back();
    open.block.last_line = line_;
    if (!open_.empty()) open_.back().block.members += "} ";
    if (open.scope == Scope::kFunction)
      blocks_.functions.push_back(std::move(open.block));
    else if (open.scope == Scope::kClass)
      blocks_.classes.push_back(std::move(open.block));
  }

  void EndStatement(char c) {
    if (!open_.empty()) open_.back().block.members += Squeeze(header_) + c + " ";
    header_.clear();
  }

  const std::string text_;
  Blocks blocks_;
  std::vector<Open> open_;
  std::string header_;
  int header_line_ = 1;
  int line_ = 1;
};

}  // namespace

std::vector<std::string> SplitLines(const std::string& text) {
  std::vector<std::string> lines;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::string StripCommentsAndLiterals(const std::string& text) { return Stripper(text).Run(); }

std::vector<Include> FindIncludes(const std::string& text) {
  // Comments are blanked in one copy and the path is read from the other: paths are literals.
  const std::vector<std::string> stripped = SplitLines(StripCommentsAndLiterals(text));
  const std::vector<std::string> lines = SplitLines(text);
  std::vector<Include> includes;
  for (size_t i = 0; i < lines.size() && i < stripped.size(); ++i) {
    const std::string squeezed = Squeeze(stripped[i]);
    if (!StartsWith(squeezed, "#include") && !StartsWith(squeezed, "# include")) continue;
    const size_t open = lines[i].find_first_of("\"<");
    if (open == std::string::npos) continue;
    const size_t close = lines[i].find_first_of("\">", open + 1);
    if (close == std::string::npos) continue;
    includes.push_back({lines[i].substr(open + 1, close - open - 1), static_cast<int>(i) + 1});
  }
  return includes;
}

Blocks FindBlocks(const std::string& text) {
  return BlockFinder(BlankPreprocessor(StripCommentsAndLiterals(text))).Run();
}

std::string FirstCommentBlock(const std::string& text) {
  std::string block;
  for (const std::string& line : SplitLines(text)) {
    if (!StartsWith(line, "//")) break;
    block += line + "\n";
  }
  return block;
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

bool EndsWith(const std::string& text, const std::string& suffix) {
  return text.size() >= suffix.size() &&
         text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

bool ContainsWord(const std::string& text, const std::string& word) {
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool left = at == 0 || !IsIdentifier(text[at - 1]);
    const bool right = end == text.size() || !IsIdentifier(text[end]);
    if (left && right) return true;
  }
  return false;
}

}  // namespace semshare::tidy
