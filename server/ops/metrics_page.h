// MetricsPage: the broker's counters and state in Prometheus' text format. Prefix semshare_, base
// units, every series present from the start.
// Thread-safe: a pure function over a thread-safe broker.
#ifndef SEMSHARE_SERVER_OPS_METRICS_PAGE_H_
#define SEMSHARE_SERVER_OPS_METRICS_PAGE_H_

#include <string>

#include "server/broker.h"

namespace semshare {

std::string MetricsPage(Broker* broker);

}  // namespace semshare

#endif  // SEMSHARE_SERVER_OPS_METRICS_PAGE_H_
