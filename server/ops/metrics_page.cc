#include "server/ops/metrics_page.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <limits>
#include <utility>
#include <vector>

namespace semshare {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr const char* kKindNames[kResultKinds] = {
    "unspecified", "exact_prefix", "shifted", "edited", "fuzzy", "semsharekv", "miss", "fallback"};
constexpr const char* kReasonNames[kNoMatchReasons] = {
    "unspecified",        "no_candidate", "low_coverage", "cost",
    "chunks_unavailable", "short_prompt", "busy",         "disabled"};

ClientMetric Counter(double value) {
  ClientMetric metric;
  metric.counter.value = value;
  return metric;
}

class Page {
 public:
  void AddCounter(const std::string& name, const std::string& help, double value) {
    families_.push_back(
        MetricFamily{"semshare_" + name, help, MetricType::Counter, {Counter(value)}});
  }

  void AddGauge(const std::string& name, const std::string& help, double value) {
    ClientMetric metric;
    metric.gauge.value = value;
    families_.push_back(MetricFamily{"semshare_" + name, help, MetricType::Gauge, {metric}});
  }

  // One gauge for each value but 0, which is none.
  template <typename Values>
  void AddGauges(const std::string& name, const std::string& help, const std::string& label,
                 const Values& values, const char* const* names) {
    MetricFamily family{"semshare_" + name, help, MetricType::Gauge, {}};
    for (size_t i = 1; i < values.size(); ++i) {
      ClientMetric metric;
      metric.gauge.value = static_cast<double>(values[i]);
      metric.label.push_back({label, names[i]});
      family.metric.push_back(std::move(metric));
    }
    families_.push_back(std::move(family));
  }

  template <typename Counts>
  void AddLabelled(const std::string& name, const std::string& help, const std::string& label,
                   const Counts& counts, const char* const* names) {
    MetricFamily family{"semshare_" + name, help, MetricType::Counter, {}};
    for (size_t i = 1; i < counts.size(); ++i) {
      ClientMetric metric = Counter(static_cast<double>(counts[i].load()));
      metric.label.push_back({label, names[i]});
      family.metric.push_back(std::move(metric));
    }
    families_.push_back(std::move(family));
  }

  void AddHistogram(const std::string& name, const std::string& help,
                    const LatencyHistogram& histogram) {
    ClientMetric metric;
    uint64_t cumulative = 0;
    for (size_t i = 0; i <= LatencyHistogram::kBounds.size(); ++i) {
      cumulative += histogram.count(i);
      const double bound = i < LatencyHistogram::kBounds.size()
                               ? LatencyHistogram::kBounds[i]
                               : std::numeric_limits<double>::infinity();
      metric.histogram.bucket.push_back({cumulative, bound});
    }
    metric.histogram.sample_count = cumulative;
    metric.histogram.sample_sum = histogram.sum_seconds();
    families_.push_back(
        MetricFamily{"semshare_" + name, help, MetricType::Histogram, {std::move(metric)}});
  }

  std::string Text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  std::vector<MetricFamily> families_;
};

void AddState(const BrokerStats& stats, Page* page) {
  page->AddGauge("models", "Registered models", static_cast<double>(stats.models));
  page->AddGauge("references", "Stored references", static_cast<double>(stats.references));
  page->AddGauge("chunks", "Known chunks", static_cast<double>(stats.chunks.chunks));
  page->AddGauge("chunks_resident", "Chunks in the device arena",
                 static_cast<double>(stats.chunks.chunks_resident));
  page->AddGauge("chunks_durable", "Chunks on disk",
                 static_cast<double>(stats.chunks.chunks_durable));
  page->AddGauge("chunks_pinned", "Chunks held by leases and transfers",
                 static_cast<double>(stats.chunks.chunks_pinned));
  page->AddGauge("device_bytes_used", "Bytes of the device arena in use",
                 static_cast<double>(stats.chunks.device_bytes_used));
  page->AddGauge("device_bytes_total", "Bytes of the device arena",
                 static_cast<double>(stats.chunks.device_bytes_total));
  page->AddGauge("disk_bytes", "Bytes of the store on disk", static_cast<double>(stats.disk_bytes));
  page->AddGauge("leases", "Active leases", static_cast<double>(stats.leases));
  page->AddGauge("uploads", "Uploads in progress", static_cast<double>(stats.uploads));
  page->AddGauge("shm_regions", "Memory regions that workers share",
                 static_cast<double>(stats.regions.regions));
  page->AddGauge("shm_bytes", "Bytes of those in shared memory",
                 static_cast<double>(stats.regions.bytes));
  page->AddGauges("shadow_disabled", "Models that shadow checks switched a kind of match off for",
                  "kind", stats.shadow_disabled, kKindNames);
  page->AddGauge("draining", "1 while new work is refused", stats.draining ? 1 : 0);
  page->AddCounter("chunks_evicted_total", "Copies in memory dropped",
                   static_cast<double>(stats.chunks.evicted_chunks));
  page->AddCounter("chunks_loaded_total", "Chunks read back from disk",
                   static_cast<double>(stats.chunks.loaded_chunks));
  page->AddCounter("chunks_quarantined_total", "Records that failed their checksum",
                   static_cast<double>(stats.chunks.quarantined_chunks));
}

}  // namespace

std::string MetricsPage(Broker* broker) {
  Page page;
  const Metrics& metrics = broker->metrics();
#define SEMSHARE_ADD_COUNTER(field, name, help) \
  page.AddCounter(name, help, static_cast<double>(metrics.field.load()));
  SEMSHARE_COUNTERS(SEMSHARE_ADD_COUNTER)
#undef SEMSHARE_ADD_COUNTER
  page.AddLabelled("find_results_total", "Answers of FindMatch", "kind", metrics.results,
                   kKindNames);
  page.AddLabelled("find_misses_total", "Misses of FindMatch", "reason", metrics.misses,
                   kReasonNames);
  page.AddLabelled("outcomes_total", "Outcomes that workers reported", "kind", metrics.outcomes,
                   kKindNames);
  page.AddHistogram("find_seconds", "Time of FindMatch in the broker", metrics.find_seconds);
  page.AddHistogram("commit_seconds", "Time from the last row to visible and durable",
                    metrics.commit_seconds);
  page.AddHistogram("saved_seconds", "Prefill time that workers reported a match to have saved",
                    metrics.saved_seconds);
  page.AddHistogram("shadow_kl_nats", "KL of the first token that shadow checks found",
                    metrics.shadow_kl);
  page.AddGauge("backend_fallback", "1 if the CPU stands in for a GPU that --backend=auto wanted",
                static_cast<double>(metrics.backend_fallback.load()));
  AddState(broker->Stats(), &page);
  return page.Text();
}

}  // namespace semshare
