// WindowIndex: which references hold a window code near a given one, without a scan.
//
// Bit sampling (Indyk and Motwani, 1998) with flips of the query's bits (multi-probe; Lv et al.,
// 2007): a code is filed under kWindowKeyBits bits of each of its words, and looked for under those
// bits of the query and under all that differ in up to kWindowKeyFlips of them. Of 256 bits, a code
// 20 away is found 92 times of 100, 30 away 2 of 3, 40 away 4 of 10 (independent bits); what is
// alike over several windows has as many chances. With 25 bits and two flips it would be 99 of 100,
// 9 of 10 and 2 of 3, for 14 times as many places in memory, none of which is cached.
//
// Thread-safe. The caller keeps the codes, and compares them.
#ifndef SEMSHARE_SERVER_MATCH_WINDOW_INDEX_H_
#define SEMSHARE_SERVER_MATCH_WINDOW_INDEX_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/match/embedding_space.h"
#include "server/match/posting_table.h"

namespace semshare {

inline constexpr int kWindowKeyBits = 23;
inline constexpr int kWindowKeyFlips = 1;

class WindowIndex {
 public:
  // At most `cap` references are listed for the same bits; `key` as for grams.
  WindowIndex(int cap, uint64_t key) : key_(key), table_(cap) {}

  // Codes of kSignatureWords words. REQUIRES: Remove is called with the codes that were added.
  void Add(uint32_t slot, absl::Span<const uint64_t> codes);
  void Remove(uint32_t slot, absl::Span<const uint64_t> codes);

  // A window of the reference agrees with query code `query` in the bits of `word`, but for flips.
  struct Hit {
    uint32_t slot = 0;
    int32_t query = 0;
    int32_t word = 0;
  };
  // With the fewest flips first; the search ends soon after `max_hits`.
  std::vector<Hit> Find(absl::Span<const uint64_t> queries, size_t max_hits) const;

  int64_t bytes() const { return table_.bytes(); }

 private:
  std::vector<uint64_t> KeysOf(absl::Span<const uint64_t> codes) const;

  const uint64_t key_;
  PostingTable table_;
};

// Whether a window is one that the hit may stand for.
bool WindowAgrees(const uint64_t* window, const uint64_t* query, int32_t word);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_WINDOW_INDEX_H_
