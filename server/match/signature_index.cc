#include "server/match/signature_index.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/match/run_on_lane.h"

namespace semshare {

// `codes` and `owners` have a fixed capacity: a row is written once, under the lock, before `count`
// covers it, and only read after, so readers need no lock for rows below the count they saw.
// `count`, `live`, `live_count`, `device` and `on_device` belong to the index's mutex; `device` is
// fixed once on_device is set.
struct SignatureIndex::Segment {
  Segment(int64_t capacity, int words)
      : codes(capacity * words), owners(capacity), live(capacity / 64) {}

  std::vector<uint64_t> codes;
  std::vector<uint64_t> owners;
  int64_t count = 0;
  std::vector<uint64_t> live;
  int64_t live_count = 0;
  bool sealing = false;
  bool on_device = false;
  Buffer device;
};

namespace {

struct Found {
  int32_t distance = 0;
  size_t segment = 0;
  int64_t index = 0;
};

bool Nearer(const Found& a, const Found& b) {
  if (a.distance != b.distance) return a.distance < b.distance;
  return a.segment != b.segment ? a.segment < b.segment : a.index < b.index;
}

int32_t Distance(const uint64_t* a, const uint64_t* b, int words) {
  int32_t distance = 0;
  for (int w = 0; w < words; ++w) distance += std::popcount(a[w] ^ b[w]);
  return distance;
}

bool IsLive(const std::vector<uint64_t>& live, int64_t index) {
  return ((live[index / 64] >> (index % 64)) & 1) != 0;
}

}  // namespace

SignatureIndex::SignatureIndex(int words, Backend* backend, int64_t segment_codes)
    : words_(words), backend_(*backend), segment_codes_(segment_codes) {
  SEMSHARE_CHECK(words >= 1 && segment_codes >= 64 && segment_codes % 64 == 0);
}

absl::Status SignatureIndex::Add(uint64_t owner, absl::Span<const uint64_t> codes) {
  if (codes.size() % words_ != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("codes of ", codes.size(), " words, not a multiple of ", words_));
  }
  SEMSHARE_RETURN_IF_ERROR(SealFull());
  const MutexLock lock(&mutex_);
  for (size_t at = 0; at < codes.size(); at += words_) {
    if (segments_.empty() || segments_.back()->count == segment_codes_) {
      segments_.push_back(std::make_shared<Segment>(segment_codes_, words_));
    }
    Segment& open = *segments_.back();
    const int64_t index = open.count;
    std::copy_n(codes.begin() + static_cast<int64_t>(at), words_,
                open.codes.begin() + index * words_);
    open.owners[index] = owner;
    open.live[index / 64] |= uint64_t{1} << (index % 64);
    ++open.count;
    ++open.live_count;
    ++live_;
    rows_[owner].push_back({segments_.back(), index});
  }
  return absl::OkStatus();
}

void SignatureIndex::Remove(uint64_t owner) {
  std::vector<Row> rows;                            // freed after the lock
  std::vector<std::shared_ptr<Segment>> abandoned;  // with their device memory
  const MutexLock lock(&mutex_);
  const auto found = rows_.find(owner);
  if (found == rows_.end()) return;
  rows = std::move(found->second);
  rows_.erase(found);
  for (const Row& row : rows) {
    row.segment->live[row.index / 64] &= ~(uint64_t{1} << (row.index % 64));
    --row.segment->live_count;
    --live_;
  }
  // A full segment without live codes is dropped; a scan that is looking at it keeps it alive.
  const auto dead = [&](const std::shared_ptr<Segment>& segment) {
    if (segment->count < segment_codes_ || segment->live_count > 0) return false;
    abandoned.push_back(segment);
    return true;
  };
  segments_.erase(std::remove_if(segments_.begin(), segments_.end(), dead), segments_.end());
}

// Copies full segments to the device. Two threads never seal the same one.
absl::Status SignatureIndex::SealFull() {
  std::vector<std::shared_ptr<Segment>> full;
  {
    const MutexLock lock(&mutex_);
    for (const std::shared_ptr<Segment>& segment : segments_) {
      if (segment->count < segment_codes_ || segment->on_device || segment->sealing) continue;
      segment->sealing = true;
      full.push_back(segment);
    }
  }
  absl::Status status;
  for (const std::shared_ptr<Segment>& segment : full) {
    const auto words = static_cast<int64_t>(segment->codes.size());
    absl::StatusOr<Buffer> device =
        backend_.Allocate(MemoryKind::kDevice, words * static_cast<int64_t>(sizeof(uint64_t)));
    absl::Status copied = device.status();
    if (device.ok()) {
      copied = RunOnLane(backend_, [&](Lane& lane) {
        return backend_.EnqueueCopy(lane, device->span(), HostSpan(segment->codes.data(), words));
      });
    }
    if (!copied.ok()) status = copied;
    const MutexLock lock(&mutex_);
    segment->sealing = false;
    if (!copied.ok()) continue;
    segment->device = *std::move(device);
    segment->on_device = true;
  }
  return status;
}

std::vector<SignatureIndex::View> SignatureIndex::Views() const {
  std::vector<View> views;
  const MutexLock lock(&mutex_);
  for (const std::shared_ptr<Segment>& segment : segments_) {
    if (segment->live_count == 0) continue;
    views.push_back({segment, segment->count, segment->live, segment->on_device});
  }
  return views;
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
  const auto queue = [&](Lane& lane) -> absl::Status {
    for (size_t v = 0; v < views.size(); ++v) {
      if (!views[v].on_device) continue;
      HammingTopKArgs args;
      args.codes = views[v].segment->device.span();
      args.count = views[v].count;
      args.words = words_;
      args.live = HostSpan(views[v].live.data(), static_cast<int64_t>(views[v].live.size()));
      args.queries = HostSpan(queries.data(), static_cast<int64_t>(queries.size()));
      args.query_count = query_count;
      args.k = k;
      const int64_t first = static_cast<int64_t>(v) * query_count * k;
      args.indices = HostSpan(indices.data() + first, query_count * k);
      args.distances = HostSpan(distances.data() + first, query_count * k);
      SEMSHARE_RETURN_IF_ERROR(backend_.EnqueueHammingTopK(lane, args));
    }
    return absl::OkStatus();
  };
  if (std::any_of(views.begin(), views.end(), [](const View& view) { return view.on_device; })) {
    SEMSHARE_RETURN_IF_ERROR(RunOnLane(backend_, queue));
  }

  for (int64_t q = 0; q < query_count; ++q) {
    std::vector<Found> found;
    for (size_t v = 0; v < views.size(); ++v) {
      const View& view = views[v];
      if (view.on_device) {
        const int64_t first = (static_cast<int64_t>(v) * query_count + q) * k;
        for (int64_t i = first; i < first + k && indices[i] >= 0; ++i) {
          found.push_back({distances[i], v, indices[i]});
        }
        continue;
      }
      for (int64_t i = 0; i < view.count; ++i) {
        if (!IsLive(view.live, i)) continue;
        const uint64_t* code = view.segment->codes.data() + i * words_;
        found.push_back({Distance(queries.data() + q * words_, code, words_), v, i});
      }
    }
    const size_t kept = std::min<size_t>(k, found.size());
    std::partial_sort(found.begin(), found.begin() + static_cast<int64_t>(kept), found.end(),
                      Nearer);
    for (size_t i = 0; i < kept; ++i) {
      nearest[q].push_back(
          {views[found[i].segment].segment->owners[found[i].index], found[i].distance});
    }
  }
  return nearest;
}

int64_t SignatureIndex::codes() const {
  const MutexLock lock(&mutex_);
  return live_;
}

int64_t SignatureIndex::bytes() const {
  const MutexLock lock(&mutex_);
  const int64_t code_bytes = words_ * static_cast<int64_t>(sizeof(uint64_t));
  int64_t bytes = 0;
  for (const std::shared_ptr<Segment>& segment : segments_) {
    bytes += segment_codes_ * (code_bytes * (segment->on_device ? 2 : 1) +
                               static_cast<int64_t>(sizeof(uint64_t))) +
             segment_codes_ / 8;
  }
  return bytes;
}

}  // namespace semshare
