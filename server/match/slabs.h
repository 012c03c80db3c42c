// Slabs: an array that grows without moving what it has, so that readers need not stop.
//
// Slab 0 has kFirstSlab places and each later one as many as all before it together, so there are
// few: a million places are nine slabs. PlaceOf says where an index lies.
//
// SlabArray is thread-safe as far as places go: Ensure may be called by several threads at once,
// and a place can be read by whoever learnt its index from a thread that had ensured it. It says
// nothing of what lies at a place. Owns its memory, which stays until it is destroyed.
#ifndef SEMSHARE_SERVER_MATCH_SLABS_H_
#define SEMSHARE_SERVER_MATCH_SLABS_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "kernels/base/mutex.h"

namespace semshare {

inline constexpr int64_t kFirstSlab = 4096;
inline constexpr int kMaxSlabs = 20;  // 2^31 places

struct SlabPlace {
  int slab = 0;
  int64_t row = 0;
};

constexpr int64_t SlabRows(int slab) { return slab == 0 ? kFirstSlab : kFirstSlab << (slab - 1); }

constexpr SlabPlace PlaceOf(uint32_t index) {
  const int slab = std::bit_width(index / static_cast<uint32_t>(kFirstSlab));
  return {slab, slab == 0 ? index : index - SlabRows(slab)};
}

template <typename T>
class SlabArray {
 public:
  // Makes a place for the index, if there is none.
  void Ensure(uint32_t index) {
    const int slab = PlaceOf(index).slab;
    if (slabs_[slab].load(std::memory_order_acquire) != nullptr) return;
    const MutexLock lock(&mutex_);
    if (owned_[slab] != nullptr) return;
    owned_[slab] = std::make_unique<T[]>(static_cast<size_t>(SlabRows(slab)));
    places_.fetch_add(SlabRows(slab), std::memory_order_relaxed);
    slabs_[slab].store(owned_[slab].get(), std::memory_order_release);
  }

  // REQUIRES: Ensure(index) was called.
  T& operator[](uint32_t index) const {
    const SlabPlace place = PlaceOf(index);
    return slabs_[place.slab].load(std::memory_order_acquire)[place.row];
  }

  int64_t bytes() const {
    return places_.load(std::memory_order_relaxed) * static_cast<int64_t>(sizeof(T));
  }

 private:
  Mutex mutex_;
  std::array<std::unique_ptr<T[]>, kMaxSlabs> owned_ ABSL_GUARDED_BY(mutex_);
  std::array<std::atomic<T*>, kMaxSlabs> slabs_ = {};
  std::atomic<int64_t> places_{0};
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_SLABS_H_
