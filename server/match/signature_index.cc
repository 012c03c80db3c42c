#include "server/match/signature_index.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/match/run_on_lane.h"

namespace semshare {
namespace {

// Of a slab this many codes, or this share of them if it is more, are compared in full.
constexpr int64_t kShortlist = 4096;
constexpr int64_t kShortlistShare = 128;

constexpr auto kWord = static_cast<int64_t>(sizeof(uint64_t));

}  // namespace

// A row is written while its live bit is clear, and only read by those who have seen it set.
struct SignatureIndex::Slab {
  explicit Slab(int64_t rows) : first_words(rows), live(rows / 64) {}

  Buffer codes;
  std::vector<uint64_t> first_words;  // in host memory: only a CPU looks at them
  std::vector<std::atomic<uint64_t>> live;
  std::atomic<int64_t> count{0};  // rows below it may be live
};

SignatureIndex::SignatureIndex(int words, Backend* backend) : words_(words), backend_(*backend) {
  SEMSHARE_CHECK(words >= 1);
}

SignatureIndex::~SignatureIndex() = default;

// Makes the slab if it is not there. Of two threads that make it one throws its own away.
absl::StatusOr<SignatureIndex::Slab*> SignatureIndex::SlabOf(int number) {
  Slab* slab = slabs_[number].load(std::memory_order_acquire);
  if (slab != nullptr) return slab;
  const int64_t rows = SlabRows(number);
  auto made = std::make_unique<Slab>(rows);
  SEMSHARE_ASSIGN_OR_RETURN(made->codes,
                            backend_.Allocate(MemoryKind::kDevice, rows * words_ * kWord));
  const MutexLock lock(&mutex_);
  if (owned_[number] == nullptr) {
    owned_[number] = std::move(made);
    bytes_.fetch_add(rows * (words_ + 1) * kWord + rows / 8, std::memory_order_relaxed);
    slabs_[number].store(owned_[number].get(), std::memory_order_release);
  }
  return owned_[number].get();
}

absl::Status SignatureIndex::Set(uint32_t row, absl::Span<const uint64_t> code) {
  if (static_cast<int>(code.size()) != words_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a code of ", code.size(), " words, not ", words_));
  }
  const SlabPlace place = PlaceOf(row);
  SEMSHARE_ASSIGN_OR_RETURN(Slab* const slab, SlabOf(place.slab));
  SEMSHARE_RETURN_IF_ERROR(RunOnLane(backend_, [&](Lane& lane) {
    return backend_.EnqueueCopy(lane,
                                slab->codes.span().Sub(place.row * words_ * kWord, words_ * kWord),
                                HostSpan(code.data(), words_));
  }));
  slab->first_words[place.row] = code[0];
  slab->live[place.row / 64].fetch_or(uint64_t{1} << (place.row % 64), std::memory_order_release);
  int64_t count = slab->count.load(std::memory_order_relaxed);
  while (count <= place.row &&
         !slab->count.compare_exchange_weak(count, place.row + 1, std::memory_order_relaxed)) {
  }
  return absl::OkStatus();
}

void SignatureIndex::Clear(uint32_t row) {
  const SlabPlace place = PlaceOf(row);
  Slab* const slab = slabs_[place.slab].load(std::memory_order_acquire);
  if (slab == nullptr) return;
  slab->live[place.row / 64].fetch_and(~(uint64_t{1} << (place.row % 64)),
                                       std::memory_order_relaxed);
}

std::vector<SignatureIndex::View> SignatureIndex::Views() const {
  std::vector<View> views;
  for (int number = 0; number < kMaxSlabs; ++number) {
    const Slab* const slab = slabs_[number].load(std::memory_order_acquire);
    if (slab == nullptr) continue;
    View view;
    view.slab = slab;
    view.first_row = number == 0 ? 0 : static_cast<uint32_t>(SlabRows(number));
    view.count = slab->count.load(std::memory_order_relaxed);
    view.live.resize(static_cast<size_t>(view.count + 63) / 64);
    uint64_t any = 0;
    for (size_t i = 0; i < view.live.size(); ++i) {
      view.live[i] = slab->live[i].load(std::memory_order_acquire);
      any |= view.live[i];
    }
    if (any != 0) views.push_back(std::move(view));
  }
  return views;
}

std::vector<uint32_t> SignatureIndex::LiveRows() const {
  std::vector<uint32_t> rows;
  for (const View& view : Views()) {
    for (int64_t row = 0; row < view.count; ++row) {
      if ((view.live[row / 64] >> (row % 64) & 1) != 0) {
        rows.push_back(view.first_row + static_cast<uint32_t>(row));
      }
    }
  }
  return rows;
}

absl::StatusOr<std::vector<std::vector<SignatureIndex::Near>>> SignatureIndex::Nearest(
    absl::Span<const uint64_t> queries, int k) const {
  if (queries.size() % words_ != 0 || k < 1 || k > 64) {
    return absl::InvalidArgumentError(
        absl::StrCat("nearest ", k, " of queries of ", queries.size(), " words"));
  }
  const auto query_count = static_cast<int64_t>(queries.size()) / words_;
  const std::vector<View> views = Views();
  std::vector<std::vector<Near>> nearest(query_count);
  if (query_count == 0 || views.empty()) return nearest;

  std::vector<int64_t> indices(views.size() * query_count * k, -1);
  std::vector<int32_t> distances(indices.size(), 0);
  SEMSHARE_RETURN_IF_ERROR(RunOnLane(backend_, [&](Lane& lane) -> absl::Status {
    for (size_t v = 0; v < views.size(); ++v) {
      const View& view = views[v];
      HammingTopKArgs args;
      args.codes = view.slab->codes.span();
      args.count = view.count;
      args.words = words_;
      args.live = HostSpan(view.live.data(), static_cast<int64_t>(view.live.size()));
      args.queries = HostSpan(queries.data(), static_cast<int64_t>(queries.size()));
      args.query_count = query_count;
      args.k = k;
      const int64_t first = static_cast<int64_t>(v) * query_count * k;
      args.indices = HostSpan(indices.data() + first, query_count * k);
      args.distances = HostSpan(distances.data() + first, query_count * k);
      args.first_words = HostSpan(view.slab->first_words.data(), view.count);
      args.shortlist = std::max(kShortlist, view.count / kShortlistShare);
      SEMSHARE_RETURN_IF_ERROR(backend_.EnqueueHammingTopK(lane, args));
    }
    return absl::OkStatus();
  }));

  for (int64_t q = 0; q < query_count; ++q) {
    for (size_t v = 0; v < views.size(); ++v) {
      const int64_t first = (static_cast<int64_t>(v) * query_count + q) * k;
      for (int64_t i = first; i < first + k && indices[i] >= 0; ++i) {
        nearest[q].push_back(
            {views[v].first_row + static_cast<uint32_t>(indices[i]), distances[i]});
      }
    }
    std::sort(nearest[q].begin(), nearest[q].end(), [](const Near& a, const Near& b) {
      return a.distance != b.distance ? a.distance < b.distance : a.row < b.row;
    });
    nearest[q].resize(std::min<size_t>(k, nearest[q].size()));
  }
  return nearest;
}

}  // namespace semshare
