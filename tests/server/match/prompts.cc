#include "tests/server/match/prompts.h"

#include <algorithm>

namespace semshare {

int64_t Prompts::Below(int64_t bound) {
  return static_cast<int64_t>(random_() % static_cast<uint64_t>(bound));
}

Ids Prompts::Text(int64_t tokens) {
  Ids ids(tokens);
  for (uint32_t& id : ids) id = static_cast<uint32_t>(Below(1 + Below(vocab_)));
  return ids;
}

Ids Prompts::Edited(const Ids& ids, double share) {
  Ids edited;
  for (const uint32_t id : ids) {
    if (static_cast<double>(Below(1000000)) >= share * 1e6) {
      edited.push_back(id);
      continue;
    }
    const int64_t kind = Below(3);  // 0: delete
    if (kind >= 1) edited.push_back(static_cast<uint32_t>(Below(vocab_)));
    if (kind == 2) edited.push_back(id);
  }
  return edited;
}

Ids Prompts::Shuffled(const Ids& ids, int64_t tokens) {
  std::vector<Ids> paragraphs;
  const auto size = static_cast<int64_t>(ids.size());
  for (int64_t begin = 0; begin < size; begin += tokens) {
    paragraphs.push_back(Slice(ids, begin, std::min(size, begin + tokens)));
  }
  Ids shuffled;
  while (!paragraphs.empty()) {
    const int64_t at = Below(static_cast<int64_t>(paragraphs.size()));
    shuffled.insert(shuffled.end(), paragraphs[at].begin(), paragraphs[at].end());
    paragraphs.erase(paragraphs.begin() + at);
  }
  return shuffled;
}

Ids Join(std::initializer_list<Ids> parts) {
  Ids joined;
  for (const Ids& part : parts) joined.insert(joined.end(), part.begin(), part.end());
  return joined;
}

Ids Slice(const Ids& ids, int64_t begin, int64_t end) {
  return Ids(ids.begin() + begin, ids.begin() + end);
}

PromptView View(const Ids& ids) { return {ids, {}}; }

std::vector<PromptView> Views(const std::vector<Ids>& prompts) {
  std::vector<PromptView> views;
  for (const Ids& ids : prompts) views.push_back(View(ids));
  return views;
}

std::vector<int64_t> PlaceOfEach(const Alignment& alignment, int64_t target_tokens) {
  std::vector<int64_t> places(target_tokens, -1);
  for (const Segment& segment : alignment.segments) {
    for (int64_t i = 0; i < segment.tokens; ++i) {
      places[segment.target_begin + i] = segment.source_begin + i;
    }
  }
  return places;
}

}  // namespace semshare
