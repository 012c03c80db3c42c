#include "server/match/reseat.h"

#include <algorithm>
#include <utility>

#include "server/match/seed_table.h"

namespace semshare {
namespace {

// A stretch of rows that continue each other.
struct Stretch {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t tokens() const { return end - begin; }
};

std::vector<Stretch> Stretches(const std::vector<TokenRow>& rows) {
  std::vector<Stretch> stretches;
  for (int64_t t = 0; t < static_cast<int64_t>(rows.size()); ++t) {
    if (!rows[t].matched()) continue;
    if (t > 0 && rows[t - 1].ContinuedBy(rows[t])) {
      stretches.back().end = t + 1;
    } else {
      stretches.push_back({t, t + 1});
    }
  }
  return stretches;
}

Run RunOf(const Stretch& stretch, const std::vector<TokenRow>& rows) {
  const TokenRow& first = rows[stretch.begin];
  return {stretch.begin, first.source, first.position, stretch.tokens()};
}

void Assign(const Run& run, std::vector<TokenRow>& rows) {
  for (int64_t i = 0; i < run.tokens; ++i) {
    rows[run.target + i] = {run.source, SegmentKind::kExact, run.position + i};
  }
}

// The matched stretches beside one; null where there is none.
struct Neighbours {
  const Stretch* left = nullptr;
  const Stretch* right = nullptr;
};

Neighbours NeighboursOf(const std::vector<Stretch>& stretches, size_t i) {
  return {i > 0 ? &stretches[i - 1] : nullptr,
          i + 1 < stretches.size() ? &stretches[i + 1] : nullptr};
}

// How well a run sits between its neighbours: on the same diagonal best, then in the same order
// where that matters.
constexpr int kSameDiagonal = 3;

int FitScore(const Run& run, const Neighbours& beside, bool order_matters,
             const std::vector<TokenRow>& rows) {
  const auto score = [&](bool same_diagonal, bool in_order) {
    return same_diagonal ? kSameDiagonal : static_cast<int>(order_matters && in_order);
  };
  int sum = 0;
  if (beside.left != nullptr) {
    const int64_t last = beside.left->end - 1;
    const int64_t step = run.position - rows[last].position;
    if (rows[last].source == run.source) sum += score(step == run.target - last, step > 0);
  }
  if (beside.right != nullptr) {
    const int64_t first = beside.right->begin;
    const int64_t step = rows[first].position - run.position;
    if (rows[first].source == run.source) {
      sum += score(step == first - run.target, step >= run.tokens);
    }
  }
  return sum;
}

// Runs by where they begin in the target.
class RunsByTarget {
 public:
  // Of the sources that are `usable`. `runs` must outlive it.
  RunsByTarget(int64_t target_tokens, absl::Span<const Run> runs, const std::vector<bool>& usable)
      : runs_(runs), begins_(target_tokens + 2) {
    for (const Run& run : runs) {
      if (usable[run.source]) ++begins_[run.target + 2];
    }
    for (size_t t = 2; t < begins_.size(); ++t) begins_[t] += begins_[t - 1];
    by_target_.resize(begins_.back());
    for (size_t i = 0; i < runs.size(); ++i) {
      const Run& run = runs[i];
      if (usable[run.source]) by_target_[begins_[run.target + 1]++] = static_cast<int32_t>(i);
    }
  }

  // Calls `visit` with the part of each run that lies in the stretch and lacks at most `edge` of
  // its tokens; of the runs that begin before it, those that begin last are looked at.
  template <typename Visit>
  void Holding(const Stretch& stretch, int64_t edge, Visit visit) const {
    constexpr int32_t kLookedAt = 64;
    const int32_t after = begins_[std::min(stretch.begin + edge, stretch.end) + 1];
    for (int32_t i = after; i > std::max(0, after - kLookedAt); --i) {
      const Run& run = runs_[by_target_[i - 1]];
      const int64_t begin = std::max(stretch.begin, run.target);
      const int64_t end = std::min(stretch.end, run.target_end());
      if (end - begin < stretch.tokens() - edge) continue;
      visit(Run{begin, run.source, run.position + (begin - run.target), end - begin});
    }
  }

 private:
  absl::Span<const Run> runs_;
  std::vector<int32_t> by_target_;  // ascending
  std::vector<int32_t> begins_;     // those that begin before t: [0, begins_[t])
};

bool Agrees(const Texts& texts, const Run& run) {
  const SymbolSpan source = texts.sources[run.source];
  if (run.position < 0 || run.position > static_cast<int64_t>(source.size())) return false;
  const SymbolSpan target = texts.target.subspan(run.target, run.tokens);
  return CommonPrefix(target, source.subspan(run.position)) == run.tokens;
}

void Reseat(const Texts& texts, const RunsByTarget& held, const Stretch& stretch,
            const Neighbours& beside, std::vector<TokenRow>& rows) {
  Run best = RunOf(stretch, rows);
  int best_score = FitScore(best, beside, true, rows);
  const auto consider = [&](const Run& run) {
    const int score = FitScore(run, beside, true, rows);
    if (score <= best_score || !Agrees(texts, run)) return;
    best = run;
    best_score = score;
  };
  const auto continuing = [&](int64_t neighbour) {
    const TokenRow& row = rows[neighbour];
    consider(
        {stretch.begin, row.source, row.position + (stretch.begin - neighbour), stretch.tokens()});
  };
  if (beside.left != nullptr) continuing(beside.left->end - 1);
  if (beside.right != nullptr) continuing(beside.right->begin);
  held.Holding(stretch, 0, consider);
  Assign(best, rows);
}

// Passages that could come from nearer, and the runs that hold them.
class Passages {
 public:
  Passages(const Texts& texts, absl::Span<const Run> runs, int64_t prefix,
           std::vector<TokenRow>& rows)
      : rows_(rows), sources_(texts.sources.size()) {
    const std::vector<Stretch> stretches = Stretches(rows);
    std::vector<Run> moved;
    for (size_t i = 0; i < stretches.size(); ++i) {
      if (stretches[i].begin < prefix) continue;
      const Run& run = moved.emplace_back(RunOf(stretches[i], rows));
      if (run.tokens < kMovedPassageTokens) continue;
      if (FitScore(run, NeighboursOf(stretches, i), false, rows) > 0) continue;
      passages_.push_back({stretches[i], run.displacement()});
    }
    if (!IsReordered(std::move(moved))) passages_.clear();
    if (passages_.empty()) return;
    const RunsByTarget held(static_cast<int64_t>(texts.target.size()), runs,
                            std::vector<bool>(sources_, true));
    for (size_t p = 0; p < passages_.size(); ++p) {
      const Stretch& stretch = passages_[p].stretch;
      held.Holding(stretch, stretch.tokens() / kEdgeTokens, [&](const Run& run) {
        offers_.push_back({p, run});
      });
    }
  }

  // Tokens that each source holds at half the displacement, or less, of those that are taken.
  std::vector<int64_t> Gains() const {
    std::vector<int64_t> gains(sources_);
    std::vector<size_t> counted(sources_, passages_.size());  // the passage that was counted last
    for (const Offer& offer : offers_) {
      const int64_t now = passages_[offer.passage].displacement;
      if (now == 0 || 2 * offer.run.displacement() > now) continue;
      if (std::exchange(counted[offer.run.source], offer.passage) == offer.passage) continue;
      gains[offer.run.source] += offer.run.tokens;
    }
    return gains;
  }

  // Takes what the source holds nearer than what is taken.
  void TakeFrom(int source) {
    for (const Offer& offer : offers_) {
      Passage& passage = passages_[offer.passage];
      if (offer.run.source != source || offer.run.displacement() >= passage.displacement) continue;
      std::fill(rows_.begin() + passage.stretch.begin, rows_.begin() + passage.stretch.end,
                TokenRow());
      Assign(offer.run, rows_);
      passage.displacement = offer.run.displacement();
    }
  }

 private:
  struct Passage {
    Stretch stretch;
    int64_t displacement = 0;
  };
  struct Offer {
    size_t passage = 0;
    Run run;
  };

  std::vector<TokenRow>& rows_;
  const size_t sources_;
  std::vector<Passage> passages_;
  std::vector<Offer> offers_;  // by passage
};

}  // namespace

void KeepTogether(const Texts& texts, absl::Span<const Run> runs, const std::vector<int>& chosen,
                  int64_t prefix, std::vector<TokenRow>& rows) {
  const std::vector<Stretch> stretches = Stretches(rows);
  if (stretches.size() < 2) return;
  std::vector<bool> usable(texts.sources.size());
  for (const int source : chosen) usable[source] = true;
  const RunsByTarget held(static_cast<int64_t>(texts.target.size()), runs, usable);
  for (size_t i = 0; i < stretches.size(); ++i) {
    if (stretches[i].begin < prefix) continue;  // exact where it is
    Reseat(texts, held, stretches[i], NeighboursOf(stretches, i), rows);
  }
}

void MoveNearer(const Texts& texts, absl::Span<const Run> runs, const Further& further,
                int64_t prefix, const std::vector<int>& chosen, std::vector<TokenRow>& rows) {
  if (texts.sources.size() < 2) return;
  Passages passages(texts, runs, prefix, rows);
  for (const int source : chosen) passages.TakeFrom(source);
  for (auto used = static_cast<int>(chosen.size()); used < further.max_references; ++used) {
    // Nothing is nearer in a source that is used by now.
    const std::vector<int64_t> gains = passages.Gains();
    const auto best = std::max_element(gains.begin(), gains.end());
    if (*best < further.least_tokens) return;
    passages.TakeFrom(static_cast<int>(best - gains.begin()));
  }
}

}  // namespace semshare
