// SignatureIndex: sign codes of owners, scanned by Hamming distance on the backend.
//
// Codes lie in segments. The newest segment is open: it is in host memory and scanned there, which
// costs microseconds. A full one is copied to device memory and never written again, so scans need
// no lock; removal clears bits of a live set of which each scan takes a copy.
//
// Thread-safe: no device work is done under the lock. Owns its memory; the Backend must outlive it.
#ifndef SEMSHARE_SERVER_MATCH_SIGNATURE_INDEX_H_
#define SEMSHARE_SERVER_MATCH_SIGNATURE_INDEX_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"

namespace semshare {

class SignatureIndex {
 public:
  static constexpr int64_t kDefaultSegmentCodes = 4096;

  // REQUIRES: words >= 1; segment_codes is a multiple of 64.
  SignatureIndex(int words, Backend* backend, int64_t segment_codes = kDefaultSegmentCodes);

  // Adds codes of an owner. On failure nothing is added, but a full segment may be left in host
  // memory; the next Add tries again to move it.
  absl::Status Add(uint64_t owner, absl::Span<const uint64_t> codes);
  // Removes all codes of an owner; no effect if there are none.
  void Remove(uint64_t owner);

  struct Near {
    uint64_t owner = 0;
    int32_t distance = 0;
  };
  // For each query the owners of the `k` nearest codes, nearest first; of equal distances the one
  // added first. An owner appears once for each of its codes among them.
  // REQUIRES: 1 <= k <= 64.
  absl::StatusOr<std::vector<std::vector<Near>>> Nearest(absl::Span<const uint64_t> queries,
                                                         int k) const;

  int64_t codes() const;  // live ones
  int64_t bytes() const;

 private:
  struct Segment;
  struct Row {
    std::shared_ptr<Segment> segment;
    int64_t index = 0;
  };
  // What one scan looks at.
  struct View {
    std::shared_ptr<const Segment> segment;
    int64_t count = 0;
    std::vector<uint64_t> live;
    bool on_device = false;
  };

  absl::Status SealFull();
  std::vector<View> Views() const;

  const int words_;
  Backend& backend_;
  const int64_t segment_codes_;

  mutable Mutex mutex_;
  // Guarded by mutex_.
  std::vector<std::shared_ptr<Segment>> segments_ ABSL_GUARDED_BY(mutex_);  // the last one is open
  absl::flat_hash_map<uint64_t, std::vector<Row>> rows_ ABSL_GUARDED_BY(mutex_);
  int64_t live_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_SIGNATURE_INDEX_H_
