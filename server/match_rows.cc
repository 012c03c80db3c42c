#include "server/match_rows.h"

#include <utility>

#include "kernels/angles.h"

namespace semshare {

MatchRows BuildMatchRows(absl::Span<const Segment> segments,
                         absl::Span<const std::vector<int64_t>> chunk_offsets,
                         const KvLayout& layout) {
  int64_t tokens = 0;
  for (const Segment& segment : segments) tokens += segment.tokens;
  MatchRows match;
  match.rows.reserve(static_cast<size_t>(tokens));
  match.targets.reserve(static_cast<size_t>(tokens));
  std::vector<PositionPair> pairs;
  for (const Segment& segment : segments) {
    const std::vector<int64_t>& offsets = chunk_offsets[segment.reference];
    const bool moved = segment.source_begin != segment.target_begin;
    for (int64_t i = 0; i < segment.tokens; ++i) {
      const int64_t source = segment.source_begin + i;
      const int64_t target = segment.target_begin + i;
      RealignRow row;
      row.chunk_offset = offsets[source / kChunkTokens];
      row.chunk_token = static_cast<int32_t>(source % kChunkTokens);
      row.slot = static_cast<int64_t>(match.rows.size());
      if (moved) {
        row.angle_row = static_cast<int32_t>(pairs.size());
        pairs.push_back({source, target});
      }
      match.rows.push_back(row);
      match.targets.push_back(target);
    }
  }
  match.angle_rows = static_cast<int64_t>(pairs.size());
  for (const RotaryDescriptor& rotary : layout.rotaries()) {
    match.angles.push_back(BuildAngleTable(rotary, pairs));
  }
  return match;
}

MatchRowsPtr SharedMatchRows::GetLocked(Builder build) {
  MatchRowsPtr rows = rows_.lock();
  if (rows == nullptr) {
    rows = std::make_shared<const MatchRows>(build());
    rows_ = rows;
  }
  return rows;
}

MatchRowsPtr SharedMatchRows::Get(Builder build) {
  const MutexLock lock(&mutex_);
  MatchRowsPtr rows = GetLocked(build);
  read_ = true;
  kept_ = nullptr;
  claim_ = nullptr;
  return rows;
}

void SharedMatchRows::Prepare(Builder build, std::shared_ptr<void> claim) {
  const MutexLock lock(&mutex_);
  if (read_) return;
  kept_ = GetLocked(build);
  claim_ = std::move(claim);
}

}  // namespace semshare
