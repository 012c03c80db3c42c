#include "server/lease_table.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {

std::string RandomId() {
  std::string id(16, '\0');
  SEMSHARE_CHECK(getrandom(id.data(), id.size(), 0) == static_cast<ssize_t>(id.size()));
  return id;
}

absl::Status LeaseTable::Add(MatchLeasePtr lease, int64_t now_ms) {
  MutexLock lock(&mutex_);
  if (active_ >= limit_) {
    return absl::ResourceExhaustedError(absl::StrCat("all ", limit_, " leases are in use"));
  }
  ++active_;
  const std::string id = lease->id;
  std::string tenant = lease->tenant;
  entries_[id] = Entry{State::kActive, std::move(tenant), now_ms + timeout_ms_, now_ms + max_ms_,
                       std::move(lease)};
  return absl::OkStatus();
}

MatchLeasePtr LeaseTable::EndLocked(Entry* entry, State state, int64_t now_ms) {
  --active_;
  entry->state = state;
  entry->deadline_ms = now_ms + memory_ms_;
  return std::exchange(entry->lease, nullptr);
}

absl::StatusOr<MatchLeasePtr> LeaseTable::Open(std::string_view tenant, std::string_view id,
                                               int64_t now_ms) {
  MatchLeasePtr ended;  // dies after the lock: its pins take the chunk store's lock
  MutexLock lock(&mutex_);
  const auto it = entries_.find(std::string(id));
  if (it == entries_.end() || it->second.tenant != tenant || it->second.state == State::kReleased) {
    return absl::NotFoundError("lease_id: no such lease");
  }
  Entry& entry = it->second;
  if (entry.state == State::kActive && now_ms > entry.deadline_ms) {
    ended = EndLocked(&entry, State::kExpired, now_ms);
  }
  if (entry.state == State::kExpired) return absl::AbortedError("lease_id: the lease expired");
  entry.deadline_ms = std::min(now_ms + timeout_ms_, entry.last_deadline_ms);
  return entry.lease;
}

absl::StatusOr<bool> LeaseTable::Release(std::string_view tenant, std::string_view id,
                                         int64_t now_ms) {
  MatchLeasePtr ended;
  MutexLock lock(&mutex_);
  const auto it = entries_.find(std::string(id));
  if (it == entries_.end() || it->second.tenant != tenant) {
    return absl::NotFoundError("lease_id: no such lease");
  }
  if (it->second.state == State::kExpired) return absl::AbortedError("lease_id: the lease expired");
  if (it->second.state == State::kReleased) return false;
  ended = EndLocked(&it->second, State::kReleased, now_ms);
  return true;
}

int64_t LeaseTable::Expire(int64_t now_ms) {
  std::vector<MatchLeasePtr> ended;
  MutexLock lock(&mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto current = it++;
    if (now_ms <= current->second.deadline_ms) continue;
    if (current->second.state == State::kActive) {
      ended.push_back(EndLocked(&current->second, State::kExpired, now_ms));
    } else {
      entries_.erase(current);
    }
  }
  return static_cast<int64_t>(ended.size());
}

int64_t LeaseTable::active() const {
  MutexLock lock(&mutex_);
  return active_;
}

}  // namespace semshare
