#include "server/match/reference_places.h"

namespace semshare {

ReferencePlaces::Change::Change(ReferencePlaces* places, const ReferenceId& id)
    : stripe_(places->stripes_[id.high % places->stripes_.size()]), id_(id) {
  const MutexLock lock(&stripe_.mutex);
  while (true) {
    const auto [place, is_new] = stripe_.places.try_emplace(id_);
    if (!place->second.changing) {
      place->second.changing = true;
      if (!is_new) slot = place->second.slot;
      return;
    }
    stripe_.changed.Wait(&stripe_.mutex);
  }
}

ReferencePlaces::Change::~Change() {
  const MutexLock lock(&stripe_.mutex);
  if (slot.has_value()) {
    stripe_.places[id_] = {*slot, false};
  } else {
    stripe_.places.erase(id_);
  }
  stripe_.changed.NotifyAll();
}

int64_t ReferencePlaces::size() const {
  size_t size = 0;
  for (const Stripe& stripe : stripes_) {
    const MutexLock lock(&stripe.mutex);
    size += stripe.places.size();
  }
  return static_cast<int64_t>(size);
}

int64_t ReferencePlaces::bytes() const {
  size_t places = 0;
  for (const Stripe& stripe : stripes_) {
    const MutexLock lock(&stripe.mutex);
    places += stripe.places.capacity();
  }
  constexpr size_t kPlaceBytes = sizeof(std::pair<const ReferenceId, Place>) + 1;
  return static_cast<int64_t>(sizeof(*this) + places * kPlaceBytes);
}

}  // namespace semshare
