#include "server/transport/region_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/lease_table.h"

namespace semshare {
namespace {

class SharedRegion final : public Region {
 public:
  SharedRegion(void* address, int64_t bytes, std::shared_ptr<const void> owner)
      : Region(HostSpan(static_cast<std::byte*>(address), bytes), std::move(owner)),
        address_(address) {}
  ~SharedRegion() override {
    registration_ = Buffer();  // before the memory goes
    munmap(address_, static_cast<size_t>(span().bytes));
  }

  // Makes the backend reach the memory. Called once, before the region is shared.
  absl::Status Register(Backend* backend) {
    SEMSHARE_ASSIGN_OR_RETURN(registration_, backend->RegisterHost(span()));
    return absl::OkStatus();
  }

 private:
  void* const address_;
  Buffer registration_;
};

class PeerRegion final : public Region {
 public:
  PeerRegion(std::unique_ptr<const PeerMemory> memory, std::shared_ptr<const void> owner)
      : Region(memory->span(), std::move(owner)), memory_(std::move(memory)) {}

  absl::Status EnqueueWait(Lane& lane) const override { return memory_->EnqueueWait(lane); }

 private:
  const std::unique_ptr<const PeerMemory> memory_;
};

absl::Status Named(const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("region: ", status.message()));
}

absl::Status CheckFile(int fd, int64_t bytes) {
  const int seals = fcntl(fd, F_GET_SEALS);
  constexpr int kRequired = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (seals < 0) return absl::FailedPreconditionError("region: the file is not a memfd");
  if ((seals & kRequired) != kRequired) {
    return absl::FailedPreconditionError(
        "region: the memfd must be sealed with F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL");
  }
  if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) {
    return absl::FailedPreconditionError("region: the memfd is sealed against writing");
  }
  struct stat info;
  if (fstat(fd, &info) != 0 || info.st_size != bytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("region: the memfd does not have the ", bytes, " bytes that were announced"));
  }
  if (int64_t{info.st_blocks} * 512 < bytes) {
    return absl::FailedPreconditionError(
        "region: the memfd has pages that are not allocated; call fallocate first");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RegionLimits::Validate() const {
  if (max_regions < 1 || max_regions > 65536) {
    return absl::InvalidArgumentError("max_regions: expected 1..65536");
  }
  if (max_total_bytes < 1) return absl::InvalidArgumentError("max_total_bytes: must be positive");
  return absl::OkStatus();
}

absl::Status RegionTable::Reserve(int64_t bytes) {
  MutexLock lock(&mutex_);
  if (used_.regions >= limits_.max_regions) {
    return absl::ResourceExhaustedError(
        absl::StrCat("region: all ", limits_.max_regions, " regions are in use"));
  }
  if (bytes > limits_.max_total_bytes - used_.bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("region: ", bytes, " bytes are above the ",
                                                     limits_.max_total_bytes - used_.bytes,
                                                     " that are left for regions"));
  }
  ++used_.regions;
  used_.bytes += bytes;
  return absl::OkStatus();
}

void RegionTable::Unreserve(int64_t bytes) {
  MutexLock lock(&mutex_);
  --used_.regions;
  used_.bytes -= bytes;
}

std::string RegionTable::Publish(std::string_view tenant, RegionPtr region, int64_t bytes) {
  std::string handle = RandomId();
  MutexLock lock(&mutex_);
  entries_[handle] = {std::string(tenant), std::move(region), bytes};
  return handle;
}

absl::StatusOr<std::string> RegionTable::Add(std::string_view tenant, int fd, int64_t bytes,
                                             std::shared_ptr<const void> owner) {
  if (bytes < 1) return absl::InvalidArgumentError("region: must have at least one byte");
  SEMSHARE_RETURN_IF_ERROR(CheckFile(fd, bytes));
  SEMSHARE_RETURN_IF_ERROR(Reserve(bytes));
  // Populated now: a page fault on the way of a read costs many times the copy.
  void* address = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_POPULATE, fd, 0);
  if (address == MAP_FAILED) {
    Unreserve(bytes);
    return absl::ResourceExhaustedError(absl::StrCat("region: can't map ", bytes, " bytes"));
  }
  auto region = std::make_shared<SharedRegion>(address, bytes, std::move(owner));
  if (const absl::Status status = region->Register(backend_); !status.ok()) {
    Unreserve(bytes);
    return Named(status);
  }
  return Publish(tenant, std::move(region), bytes);
}

absl::StatusOr<std::string> RegionTable::AddPeer(std::string_view tenant,
                                                 const PeerMemoryHandle& handle,
                                                 std::shared_ptr<const void> owner) {
  SEMSHARE_RETURN_IF_ERROR(Reserve(0));
  absl::StatusOr<std::unique_ptr<PeerMemory>> memory = backend_->OpenPeerMemory(handle);
  if (!memory.ok()) {
    Unreserve(0);
    return Named(memory.status());
  }
  return Publish(tenant, std::make_shared<PeerRegion>(*std::move(memory), std::move(owner)), 0);
}

absl::StatusOr<RegionPtr> RegionTable::Find(std::string_view tenant,
                                            std::string_view handle) const {
  MutexLock lock(&mutex_);
  const auto it = entries_.find(std::string(handle));
  if (it == entries_.end() || it->second.tenant != tenant) {
    return absl::NotFoundError("region: unknown, or the worker that shared it has gone");
  }
  return it->second.region;
}

void RegionTable::Remove(std::string_view handle) {
  Entry removed;  // may unmap, so it dies outside of the lock
  {
    MutexLock lock(&mutex_);
    const auto it = entries_.find(std::string(handle));
    if (it == entries_.end()) return;
    removed = std::move(it->second);
    entries_.erase(it);
  }
  Unreserve(removed.bytes);
}

RegionTable::Stats RegionTable::stats() const {
  MutexLock lock(&mutex_);
  return used_;
}

}  // namespace semshare
