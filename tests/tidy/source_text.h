// A source file as the tidy rules see it: its lines, its text without comments and literals, its
// includes, and its functions and classes. A heuristic, not a parser: it knows enough C++ to match
// braces, and where a construct fools it the rule that uses it has an exception list.
//
// Thread-safe: free functions of values.
#ifndef SEMSHARE_TESTS_TIDY_SOURCE_TEXT_H_
#define SEMSHARE_TESTS_TIDY_SOURCE_TEXT_H_

#include <string>
#include <vector>

namespace semshare::tidy {

struct SourceFile {
  // Relative to the repository's root, with '/'.
  std::string path;
  std::string text;
};

// A brace-matched region that begins with a header: a function or a class.
struct Block {
  // Text before the opening brace, white space squeezed.
  std::string header;
  // Counted from 1: the line where the header starts and the line of the closing brace.
  int first_line = 0;
  int last_line = 0;
  // For a class: what stands directly in it, without the bodies of its functions and inner classes.
  std::string members;
};

struct Blocks {
  std::vector<Block> functions;
  std::vector<Block> classes;
};

std::vector<std::string> SplitLines(const std::string& text);

// The text with comments, string literals and character literals blanked. Line breaks stay, so that
// line numbers hold.
std::string StripCommentsAndLiterals(const std::string& text);

struct Include {
  // Without the quotes or angle brackets.
  std::string path;
  int line = 0;
};

std::vector<Include> FindIncludes(const std::string& text);

// Functions and classes at namespace or class level; what is inside a function counts as part of
// it.
Blocks FindBlocks(const std::string& text);

// The `//` comment that the file begins with; empty if it begins with something else.
std::string FirstCommentBlock(const std::string& text);

bool Contains(const std::string& text, const std::string& part);
bool StartsWith(const std::string& text, const std::string& prefix);
bool EndsWith(const std::string& text, const std::string& suffix);

// Whether `word` occurs with no identifier character on either side.
bool ContainsWord(const std::string& text, const std::string& word);

}  // namespace semshare::tidy

#endif  // SEMSHARE_TESTS_TIDY_SOURCE_TEXT_H_
