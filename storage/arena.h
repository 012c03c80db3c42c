// Arena: bookkeeping of one span of memory that is cut into runs.
//
// The span is a row of superblocks. A superblock that is in use serves one size class: it is cut
// into as many equal slots as runs of the wanted size fit, so that a class is a number of slots.
// A superblock whose last slot is freed serves any class again. Chunks of one model have one size,
// so the memory lost to rounding is less than one run per superblock.
//
// Offsets only: no memory is touched. Not thread-safe: the owner guards it with its own lock.
#ifndef SEMSHARE_STORAGE_ARENA_H_
#define SEMSHARE_STORAGE_ARENA_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace semshare {

inline constexpr int64_t kSuperblockBytes = int64_t{32} << 20;
inline constexpr int64_t kArenaAlignment = 256;

class Arena {
 public:
  // REQUIRES: superblocks > 0; superblock_bytes is a positive multiple of kArenaAlignment.
  explicit Arena(int64_t superblocks, int64_t superblock_bytes = kSuperblockBytes);

  // Offset of a run of at least `bytes` bytes, aligned to kArenaAlignment. None if there is neither
  // a free slot of its class nor a free superblock. REQUIRES: 0 < bytes <= superblock_bytes.
  std::optional<int64_t> Allocate(int64_t bytes);

  // REQUIRES: `offset` came from Allocate and was not freed since.
  void Free(int64_t offset);

  int64_t SuperblockOf(int64_t offset) const { return offset / superblock_bytes_; }
  // Slots in use of a superblock.
  int64_t LiveSlots(int64_t superblock) const;
  // Whether a free slot of the superblock would serve Allocate(bytes).
  bool Serves(int64_t superblock, int64_t bytes) const;

  // By runs that are in use, padding included.
  int64_t bytes_used() const { return bytes_used_; }
  int64_t bytes_total() const;

 private:
  struct Superblock {
    int64_t slots = 0;  // 0: serves no class now
    int64_t live = 0;
    std::vector<bool> used;
    std::vector<int64_t> free;  // slots that were freed; those from `fresh` on never were used
    int64_t fresh = 0;
  };

  int64_t SlotsFor(int64_t bytes) const;
  int64_t SlotBytes(int64_t slots) const;

  const int64_t superblock_bytes_;
  std::vector<Superblock> superblocks_;
  // Superblocks without a class, and by class those with a free slot (no empty sets). The lowest
  // is taken first, so that the others have a chance to empty.
  std::set<int64_t> idle_;
  std::map<int64_t, std::set<int64_t>> partial_;
  int64_t bytes_used_ = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_STORAGE_ARENA_H_
