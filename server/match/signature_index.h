// SignatureIndex: sign codes, scanned by Hamming distance on the backend.
//
// A code lies at a row that the caller chooses; rows should be dense from 0. Codes are in device
// memory, in slabs that grow by doubling (slabs.h): a million codes are nine scans, and what is
// there never moves. A scan takes a copy of the bits that say which rows are live and needs no
// lock.
//
// Of a slab of more than a few thousand codes a CPU compares in full only those whose first 64
// bits are near, about one in 128: of codes of 256 random bits it finds 98 of 100 at a distance of
// 64, and three of four at 80.
//
// Thread-safe: no device work is done under the lock. Owns its memory; the Backend must outlive it.
#ifndef SEMSHARE_SERVER_MATCH_SIGNATURE_INDEX_H_
#define SEMSHARE_SERVER_MATCH_SIGNATURE_INDEX_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"
#include "server/match/slabs.h"

namespace semshare {

class SignatureIndex {
 public:
  // REQUIRES: words >= 1.
  SignatureIndex(int words, Backend* backend);
  ~SignatureIndex();

  // Puts a code at a row. On failure the row is not live. REQUIRES: row < 2^31, not live; no call
  // of Nearest that began while it was live is still running.
  absl::Status Set(uint32_t row, absl::Span<const uint64_t> code);
  // No effect if the row is not live.
  void Clear(uint32_t row);

  struct Near {
    uint32_t row = 0;
    int32_t distance = 0;
  };
  // For each query the rows of the `k` nearest codes, nearest first; of equal distances the lower
  // row. REQUIRES: 1 <= k <= 64.
  absl::StatusOr<std::vector<std::vector<Near>>> Nearest(absl::Span<const uint64_t> queries,
                                                         int k) const;

  // Ascending.
  std::vector<uint32_t> LiveRows() const;

  int64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  struct Slab;
  // What one scan looks at.
  struct View {
    const Slab* slab = nullptr;
    uint32_t first_row = 0;
    int64_t count = 0;
    std::vector<uint64_t> live;
  };

  absl::StatusOr<Slab*> SlabOf(int number);
  std::vector<View> Views() const;

  const int words_;
  Backend& backend_;

  Mutex mutex_;  // guards owned_
  std::array<std::unique_ptr<Slab>, kMaxSlabs> owned_ ABSL_GUARDED_BY(mutex_);
  std::array<std::atomic<Slab*>, kMaxSlabs> slabs_ = {};  // the same, for readers
  std::atomic<int64_t> bytes_{0};
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_SIGNATURE_INDEX_H_
