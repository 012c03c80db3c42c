// RegionTable: memory that workers of this host share with the broker.
//
// A region is a memfd of the worker or device memory of it, mapped here. Its life is the worker's:
// it is known from Add or AddPeer until Remove, and stays mapped for whoever still uses it then (a
// RegionPtr). Leases and regions know nothing of each other.
//
// Thread-safe. Mapping is done outside of the lock.
#ifndef SEMSHARE_SERVER_TRANSPORT_REGION_TABLE_H_
#define SEMSHARE_SERVER_TRANSPORT_REGION_TABLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"

namespace semshare {

struct RegionLimits {
  int max_regions = 256;
  int64_t max_total_bytes = int64_t{16} << 30;  // of host memory
  absl::Status Validate() const;
};

// A mapping of a worker's memory, reachable for the backend; unmapped when destroyed, and its owner
// let go after that. Thread-safe.
class Region {
 public:
  virtual ~Region() = default;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  // kHost: shared memory; kDevice: memory of a GPU.
  const MemorySpan& span() const { return span_; }

  // Comes before a call's first work on the memory, and again where the worker says that more of it
  // is ready: the lane then waits for what the worker's GPU must do first.
  virtual absl::Status EnqueueWait(Lane&) const { return absl::OkStatus(); }

 protected:
  Region(const MemorySpan& span, std::shared_ptr<const void> owner)
      : owner_(std::move(owner)), span_(span) {}

 private:
  const std::shared_ptr<const void> owner_;
  const MemorySpan span_;
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
  // `owner` is held for as long as anybody uses the region.
  absl::StatusOr<std::string> Add(std::string_view tenant, int fd, int64_t bytes,
                                  std::shared_ptr<const void> owner = nullptr);

  // As Add, for device memory of another process: the refusals are those of
  // Backend::OpenPeerMemory. Counts as a region, but not towards the bytes: they are the worker's.
  absl::StatusOr<std::string> AddPeer(std::string_view tenant, const PeerMemoryHandle& handle,
                                      std::shared_ptr<const void> owner = nullptr);

  // NOT_FOUND: never added, another tenant's, or removed.
  absl::StatusOr<RegionPtr> Find(std::string_view tenant, std::string_view handle) const;

  void Remove(std::string_view handle);

  struct Stats {
    int64_t regions = 0;
    int64_t bytes = 0;  // of host memory
  };
  Stats stats() const;

 private:
  struct Entry {
    std::string tenant;
    RegionPtr region;
    int64_t bytes = 0;  // as reserved
  };
  std::string Publish(std::string_view tenant, RegionPtr region, int64_t bytes);
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
