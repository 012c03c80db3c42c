#include "storage/arena.h"

#include "kernels/base/status_macros.h"

namespace semshare {

Arena::Arena(int64_t superblocks, int64_t superblock_bytes) : superblock_bytes_(superblock_bytes) {
  SEMSHARE_CHECK(superblocks > 0);
  SEMSHARE_CHECK(superblock_bytes > 0 && superblock_bytes % kArenaAlignment == 0);
  superblocks_.resize(static_cast<size_t>(superblocks));
  for (int64_t i = 0; i < superblocks; ++i) idle_.insert(i);
}

int64_t Arena::bytes_total() const {
  return static_cast<int64_t>(superblocks_.size()) * superblock_bytes_;
}

int64_t Arena::SlotsFor(int64_t bytes) const {
  SEMSHARE_CHECK(bytes > 0 && bytes <= superblock_bytes_);
  const int64_t aligned = (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  return superblock_bytes_ / aligned;
}

int64_t Arena::SlotBytes(int64_t slots) const {
  return superblock_bytes_ / slots / kArenaAlignment * kArenaAlignment;
}

int64_t Arena::LiveSlots(int64_t superblock) const {
  return superblocks_[static_cast<size_t>(superblock)].live;
}

bool Arena::Serves(int64_t superblock, int64_t bytes) const {
  return superblocks_[static_cast<size_t>(superblock)].slots == SlotsFor(bytes);
}

std::optional<int64_t> Arena::Allocate(int64_t bytes) {
  const int64_t slots = SlotsFor(bytes);
  if (!partial_.contains(slots) && idle_.empty()) return std::nullopt;
  std::set<int64_t>& partial = partial_[slots];
  if (partial.empty()) {
    const int64_t index = *idle_.begin();
    idle_.erase(idle_.begin());
    Superblock& block = superblocks_[static_cast<size_t>(index)];
    block.slots = slots;
    block.used.assign(static_cast<size_t>(slots), false);
    partial.insert(index);
  }
  const int64_t index = *partial.begin();
  Superblock& block = superblocks_[static_cast<size_t>(index)];
  int64_t slot = block.fresh;
  if (block.free.empty()) {
    ++block.fresh;
  } else {
    slot = block.free.back();
    block.free.pop_back();
  }
  block.used[static_cast<size_t>(slot)] = true;
  if (++block.live == slots) {
    partial.erase(index);
    if (partial.empty()) partial_.erase(slots);
  }
  bytes_used_ += SlotBytes(slots);
  return index * superblock_bytes_ + slot * SlotBytes(slots);
}

void Arena::Free(int64_t offset) {
  SEMSHARE_CHECK(offset >= 0 && offset < bytes_total());
  const int64_t index = SuperblockOf(offset);
  Superblock& block = superblocks_[static_cast<size_t>(index)];
  SEMSHARE_CHECK(block.slots > 0);
  const int64_t slot_bytes = SlotBytes(block.slots);
  const int64_t slot = (offset - index * superblock_bytes_) / slot_bytes;
  SEMSHARE_CHECK(offset == index * superblock_bytes_ + slot * slot_bytes && slot < block.slots);
  SEMSHARE_CHECK(block.used[static_cast<size_t>(slot)]);
  block.used[static_cast<size_t>(slot)] = false;
  block.free.push_back(slot);
  partial_[block.slots].insert(index);
  bytes_used_ -= slot_bytes;
  if (--block.live > 0) return;
  partial_[block.slots].erase(index);
  if (partial_[block.slots].empty()) partial_.erase(block.slots);
  block = Superblock();
  idle_.insert(index);
}

}  // namespace semshare
