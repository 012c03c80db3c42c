// Metrics: everything the broker counts, as plain atomics in one table. The metrics endpoint
// (ops/metrics_page.h) renders them; nothing here knows of a format.
//
// Thread-safe: every field is atomic. One Metrics per broker, no singletons.
#ifndef SEMSHARE_SERVER_METRICS_H_
#define SEMSHARE_SERVER_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "server/match/types.h"

namespace semshare {

// X(field, prometheus name without prefix, help)
#define SEMSHARE_COUNTERS(X)                                                                       \
  X(find_requests, "find_requests_total", "FindMatch calls answered")                              \
  X(tokens_requested, "find_tokens_requested_total", "Target tokens of FindMatch calls")           \
  X(tokens_matched, "find_tokens_matched_total", "Target tokens that matches covered")             \
  X(puts_committed, "puts_committed_total", "Uploads committed")                                   \
  X(puts_dropped, "puts_dropped_total", "Uploads that ended without a commit")                     \
  X(put_bytes, "put_bytes_total", "KV bytes received")                                             \
  X(read_bytes, "read_bytes_total", "KV bytes sent, realigned")                                    \
  X(reads, "reads_total", "ReadKv streams opened")                                                 \
  X(reads_failed, "reads_failed_total", "ReadKv streams that ended with an error")                 \
  X(leases_expired, "leases_expired_total", "Leases that timed out")                               \
  X(references_expired, "references_expired_total", "References removed by their time to live")    \
  X(references_evicted, "references_evicted_total", "Memory-only references removed to make room") \
  X(probe_failures, "probe_failures_total", "Registrations refused by their probe")                \
  X(maintenance_errors, "maintenance_errors_total", "Background work that failed")                 \
  X(recomputed_token_layers, "recomputed_token_layers_total",                                      \
    "(token, layer) pairs that workers reported to have computed")                                 \
  X(fallbacks_sigma, "fallbacks_sigma_total",                                                      \
    "Full prefills after a match because the sentinels deviated")                                  \
  X(fallbacks_other, "fallbacks_other_total", "Full prefills after a match for other reasons")     \
  X(shadow_checks, "shadow_checks_total", "Reuses that workers compared with a full prefill")      \
  X(shadow_disagreements, "shadow_disagreements_total",                                            \
    "Of those, reuses whose first token was another one")                                          \
  X(shadow_switch_offs, "shadow_switch_offs_total",                                                \
    "Times that shadow checks switched a kind of match off")

inline constexpr int kNoMatchReasons = 8;  // values of NoMatchReason are below it

// Seconds in buckets; the last one is unbounded.
class LatencyHistogram {
 public:
  static constexpr std::array<double, 17> kBounds = {1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3,
                                                     1e-2, 2.5e-2, 5e-2, 0.1,  0.25,   0.5,
                                                     1.0,  2.5,    5,    10,   30};

  void Observe(double seconds) {
    size_t bucket = 0;
    while (bucket < kBounds.size() && seconds > kBounds[bucket]) ++bucket;
    counts_[bucket].fetch_add(1, std::memory_order_relaxed);
    sum_nanoseconds_.fetch_add(static_cast<uint64_t>(seconds * 1e9), std::memory_order_relaxed);
  }
  uint64_t count(size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  double sum_seconds() const {
    return static_cast<double>(sum_nanoseconds_.load(std::memory_order_relaxed)) * 1e-9;
  }

 private:
  std::array<std::atomic<uint64_t>, kBounds.size() + 1> counts_{};
  std::atomic<uint64_t> sum_nanoseconds_{0};
};

struct Metrics {
#define SEMSHARE_DECLARE_COUNTER(field, name, help) std::atomic<uint64_t> field{0};
  SEMSHARE_COUNTERS(SEMSHARE_DECLARE_COUNTER)
#undef SEMSHARE_DECLARE_COUNTER

  // A gauge, set at start: 1 if the CPU stands in for a GPU that --backend=auto did not get.
  std::atomic<uint64_t> backend_fallback{0};

  // Answers of FindMatch by kind (kMiss: no match), and misses by reason.
  std::array<std::atomic<uint64_t>, kResultKinds> results{};
  std::array<std::atomic<uint64_t>, kNoMatchReasons> misses{};
  // Outcomes that workers reported with ReleaseMatch, by kind.
  std::array<std::atomic<uint64_t>, kResultKinds> outcomes{};

  LatencyHistogram find_seconds;
  LatencyHistogram commit_seconds;
  // What workers reported with ReleaseMatch: time that a match saved (a loss counts as 0).
  LatencyHistogram saved_seconds;
  // What they reported with ReportShadowCheck: KL of the first token, in nats on the same scale.
  LatencyHistogram shadow_kl;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_METRICS_H_
