#include "server/shadow_monitor.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace semshare {

absl::Status ShadowOptions::Validate() const {
  if (!(kl_limit >= 0) || !std::isfinite(kl_limit)) {
    return absl::InvalidArgumentError("shadow_kl_limit must be finite and not negative");
  }
  if (minimum_checks < 1 || minimum_checks > ShadowMonitor::kWindow) {
    return absl::InvalidArgumentError(
        absl::StrCat("shadow_minimum_checks must be in 1..", ShadowMonitor::kWindow));
  }
  if (disable_ms < 1) return absl::InvalidArgumentError("shadow_disable_ms must be positive");
  return absl::OkStatus();
}

void ShadowMonitor::Reenable(int64_t now_ms, Entry* entry) {
  if (entry->disabled_until_ms == 0 || now_ms < entry->disabled_until_ms) return;
  entry->disabled_until_ms = 0;
  entry->begin = 0;
  entry->count = 0;
}

ShadowFigures ShadowMonitor::FiguresOf(const Entry& entry, int64_t now_ms) {
  ShadowFigures figures;
  figures.checks = entry.checks;
  // What Reenable would make of it: nothing is left of a kind whose time is over.
  if (entry.disabled_until_ms != 0 && now_ms >= entry.disabled_until_ms) return figures;
  figures.disabled_until_ms = entry.disabled_until_ms;
  figures.window = entry.count;
  if (entry.count == 0) return figures;
  double sum = 0;
  int same = 0;
  for (int i = 0; i < entry.count; ++i) {
    const Check& check = entry.ring[(entry.begin + i) % kWindow];
    sum += check.kl;
    figures.largest_kl = std::max(figures.largest_kl, check.kl);
    same += check.same_token ? 1 : 0;
  }
  figures.mean_kl = sum / entry.count;
  figures.agreement = static_cast<double>(same) / entry.count;
  return figures;
}

ShadowMonitor::Entry& ShadowMonitor::EntryLocked(const Key& key, int64_t now_ms) {
  const auto found = entries_.find(key);
  if (found != entries_.end()) return found->second;
  if (static_cast<int>(entries_.size()) >= max_entries_) {
    const auto order = [now_ms](const auto& item) {
      return std::pair(now_ms < item.second.disabled_until_ms, item.second.last_report);
    };
    entries_.erase(
        std::min_element(entries_.begin(), entries_.end(),
                         [&](const auto& a, const auto& b) { return order(a) < order(b); }));
  }
  return entries_[key];
}

ShadowMonitor::Verdict ShadowMonitor::Report(const NamespaceId& ns, ResultKind kind, double kl,
                                             bool same_token, int64_t now_ms) {
  MutexLock lock(&mutex_);
  Entry& entry = EntryLocked({ns, kind}, now_ms);
  Reenable(now_ms, &entry);
  entry.last_report = ++reports_;
  ++entry.checks;
  if (entry.count < kWindow) {
    entry.ring[(entry.begin + entry.count++) % kWindow] = {kl, same_token};
  } else {
    entry.ring[entry.begin] = {kl, same_token};
    entry.begin = (entry.begin + 1) % kWindow;
  }
  Verdict verdict;
  verdict.figures = FiguresOf(entry, now_ms);
  // A check of a match from before the kind went off does not prolong the time.
  if (entry.disabled_until_ms == 0 && options_.kl_limit > 0 &&
      entry.count >= options_.minimum_checks && verdict.figures.mean_kl > options_.kl_limit) {
    entry.disabled_until_ms = now_ms + options_.disable_ms;
    verdict.figures.disabled_until_ms = entry.disabled_until_ms;
    verdict.newly_disabled = true;
  }
  verdict.disabled = entry.disabled_until_ms != 0;
  return verdict;
}

int64_t ShadowMonitor::DisabledUntil(const NamespaceId& ns, ResultKind kind, int64_t now_ms) const {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(Key(ns, kind));
  if (found == entries_.end() || now_ms >= found->second.disabled_until_ms) return 0;
  return found->second.disabled_until_ms;
}

std::vector<std::pair<ResultKind, ShadowFigures>> ShadowMonitor::Figures(const NamespaceId& ns,
                                                                         int64_t now_ms) const {
  std::vector<std::pair<ResultKind, ShadowFigures>> figures;
  MutexLock lock(&mutex_);
  for (int value = 1; value < kResultKinds; ++value) {
    const auto kind = static_cast<ResultKind>(value);
    const auto found = entries_.find(Key(ns, kind));
    if (found != entries_.end()) figures.emplace_back(kind, FiguresOf(found->second, now_ms));
  }
  return figures;
}

std::array<int64_t, kResultKinds> ShadowMonitor::CountDisabled(int64_t now_ms) const {
  std::array<int64_t, kResultKinds> counts{};
  MutexLock lock(&mutex_);
  for (const auto& [key, entry] : entries_) {
    counts[static_cast<int>(key.second)] += now_ms < entry.disabled_until_ms ? 1 : 0;
  }
  return counts;
}

bool ShadowMonitor::Forget(const NamespaceId& ns, ResultKind kind) {
  MutexLock lock(&mutex_);
  return entries_.erase(Key(ns, kind)) > 0;
}

int ShadowMonitor::Forget(const NamespaceId& ns) {
  int forgotten = 0;
  MutexLock lock(&mutex_);
  for (int value = 1; value < kResultKinds; ++value) {
    forgotten += static_cast<int>(entries_.erase(Key(ns, static_cast<ResultKind>(value))));
  }
  return forgotten;
}

int ShadowMonitor::size() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(entries_.size());
}

}  // namespace semshare
