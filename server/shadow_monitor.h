// ShadowMonitor: what shadow checks have found, and which kinds of match are off because of it.
//
// A worker runs a share of its reused prefills again in full and reports how far the first token's
// distribution was from the engine's own. Here the latest checks of each (namespace, kind) are
// kept. A kind whose mean KL passes the limit is off for a time; after it the checks that led there
// are forgotten, and the kind is offered again. A namespace is a tenant's model, so neither tenants
// nor models see each other's checks.
//
// Thread-safe. Time is an argument, milliseconds since the Unix epoch; no call blocks.
#ifndef SEMSHARE_SERVER_SHADOW_MONITOR_H_
#define SEMSHARE_SERVER_SHADOW_MONITOR_H_

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "kernels/base/mutex.h"
#include "server/match/types.h"
#include "storage/ids.h"

namespace semshare {

struct ShadowOptions {
  double kl_limit = 0.05;       // nats; a mean above it switches a kind off; 0: none ever is
  int minimum_checks = 8;       // so many say something; at most ShadowMonitor::kWindow
  int64_t disable_ms = 600000;  // how long a kind stays off

  // INVALID_ARGUMENT names the field.
  absl::Status Validate() const;
};

// The figures of one kind of one namespace. Mean, largest and agreement are of the latest `window`
// checks; they are 0 if there is none.
struct ShadowFigures {
  uint64_t checks = 0;  // since the entry was made
  int window = 0;
  double mean_kl = 0;
  double largest_kl = 0;
  double agreement = 0;           // share of checks in which both chose the same token
  int64_t disabled_until_ms = 0;  // 0: the kind is on
};

class ShadowMonitor {
 public:
  // Checks that count; older ones are forgotten.
  static constexpr int kWindow = 64;

  // At most `max_entries` (namespace, kind) pairs are kept. A new one takes the place of the one
  // that was reported on least recently, of those that are on if there are any.
  ShadowMonitor(const ShadowOptions& options, int max_entries)
      : options_(options), max_entries_(max_entries) {}

  struct Verdict {
    bool disabled = false;
    bool newly_disabled = false;  // by this check
    ShadowFigures figures;
  };
  // REQUIRES: `kl` is finite and not negative.
  Verdict Report(const NamespaceId& ns, ResultKind kind, double kl, bool same_token,
                 int64_t now_ms);

  // When the kind is offered again; 0 if it is on.
  int64_t DisabledUntil(const NamespaceId& ns, ResultKind kind, int64_t now_ms) const;

  // The kinds of a namespace that were reported on, in the order of their values.
  std::vector<std::pair<ResultKind, ShadowFigures>> Figures(const NamespaceId& ns,
                                                            int64_t now_ms) const;

  // How many namespaces each kind is off for, indexed by ResultKind's value.
  std::array<int64_t, kResultKinds> CountDisabled(int64_t now_ms) const;

  // Forgets one kind of a namespace, and with it that the kind is off. Whether there was an entry.
  bool Forget(const NamespaceId& ns, ResultKind kind);
  // Forgets all kinds of a namespace; returns how many there were.
  int Forget(const NamespaceId& ns);

  int size() const;

 private:
  struct Check {
    double kl = 0;
    bool same_token = false;
  };
  struct Entry {
    uint64_t checks = 0;
    std::array<Check, kWindow> ring;
    int begin = 0;  // of the oldest check in the ring
    int count = 0;
    int64_t disabled_until_ms = 0;
    uint64_t last_report = 0;  // number of the latest Report, of all entries'
  };
  using Key = std::pair<NamespaceId, ResultKind>;

  // Forgets the checks of a kind whose time is over.
  static void Reenable(int64_t now_ms, Entry* entry);
  static ShadowFigures FiguresOf(const Entry& entry, int64_t now_ms);
  Entry& EntryLocked(const Key& key, int64_t now_ms) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ShadowOptions options_;
  const int max_entries_;

  mutable Mutex mutex_;
  absl::flat_hash_map<Key, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  uint64_t reports_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_SHADOW_MONITOR_H_
