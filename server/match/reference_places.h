// ReferencePlaces: the slot of each reference, and the right to change it.
//
// Thread-safe: many stripes, each with its lock, which is not held while a change is under way.
#ifndef SEMSHARE_SERVER_MATCH_REFERENCE_PLACES_H_
#define SEMSHARE_SERVER_MATCH_REFERENCE_PLACES_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "kernels/base/mutex.h"
#include "storage/ids.h"

namespace semshare {

class ReferencePlaces {
 private:
  struct Stripe;

 public:
  // A change of one reference: from construction to destruction nobody else changes it; whoever
  // wants to waits. `slot` is where it is, none if it is nowhere; what it is at destruction stays.
  // The table must outlive it. Belongs to one thread.
  class Change {
   public:
    Change(ReferencePlaces* places, const ReferenceId& id);
    ~Change();
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

    std::optional<uint32_t> slot;

   private:
    Stripe& stripe_;
    const ReferenceId id_;
  };

  int64_t size() const;
  int64_t bytes() const;

 private:
  struct Place {
    uint32_t slot = 0;
    bool changing = false;
  };
  struct Stripe {
    mutable Mutex mutex;
    CondVar changed;
    // Also references that are only being added.
    absl::flat_hash_map<ReferenceId, Place> places ABSL_GUARDED_BY(mutex);
  };

  std::array<Stripe, 64> stripes_;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MATCH_REFERENCE_PLACES_H_
