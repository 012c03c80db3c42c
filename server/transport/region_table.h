// RegionTable: memory that workers of this host share with the broker.
//
// A region is a memfd of the worker, mapped here. Its life is the worker's: it is known from Add
// until Remove, and stays mapped for whoever still uses it then (a RegionPtr). Leases and regions
// know nothing of each other.
//
// Thread-safe. Mapping is done outside of the lock.
#ifndef SEMSHARE_SERVER_TRANSPORT_REGION_TABLE_H_
#define SEMSHARE_SERVER_TRANSPORT_REGION_TABLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"

namespace semshare {

struct RegionLimits {
  int max_regions = 256;
  int64_t max_total_bytes = int64_t{16} << 30;
  absl::Status Validate() const;
};

// A mapping of shared memory, known to the backend; given up and unmapped when destroyed.
class Region {
 public:
  Region(void* address, int64_t bytes) : address_(address), bytes_(bytes) {}
  // Makes the backend reach the memory. Called once, before the region is shared.
  absl::Status Register(Backend* backend);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  MemorySpan span() const { return HostSpan(static_cast<std::byte*>(address_), bytes_); }

 private:
  void* const address_;
  const int64_t bytes_;
  Buffer registration_;
};
using RegionPtr = std::shared_ptr<const Region>;

class RegionTable {
 public:
  // `backend` must outlive the table and every region.
  RegionTable(const RegionLimits& limits, Backend* backend) : limits_(limits), backend_(backend) {}

  // Maps `bytes` bytes of the memfd `fd`, which stays the caller's, and returns a random handle of
  // 16 bytes. FAILED_PRECONDITION unless the file is a memfd sealed against shrinking, growing and
  // further seals, but not against writing, of exactly that size and with all of its pages
  // allocated: then no peer can make an access here fault, nor have its memory charged to us.
  // RESOURCE_EXHAUSTED above the limits, or if the backend cannot reach that much.
  absl::StatusOr<std::string> Add(std::string_view tenant, int fd, int64_t bytes);

  // NOT_FOUND: never added, another tenant's, or removed.
  absl::StatusOr<RegionPtr> Find(std::string_view tenant, std::string_view handle) const;

  void Remove(std::string_view handle);

  struct Stats {
    int64_t regions = 0;
    int64_t bytes = 0;
  };
  Stats stats() const;

 private:
  struct Entry {
    std::string tenant;
    RegionPtr region;
    int64_t bytes = 0;
  };
  absl::Status Reserve(int64_t bytes);
  void Unreserve(int64_t bytes);

  const RegionLimits limits_;
  Backend* const backend_;

  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  Stats used_ ABSL_GUARDED_BY(mutex_);  // those being mapped included
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_TRANSPORT_REGION_TABLE_H_
