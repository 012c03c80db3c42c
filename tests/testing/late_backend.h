// LateBackend: a Backend for tests that behaves as a device does, on any machine.
//
//  - Work runs late, on another thread: each lane has its own. An operation runs once somebody
//    waits for an event after it, or `delay` after it was enqueued. An operation reads caller-owned
//    memory when it runs, so memory that is freed or changed too early is found (by
//    AddressSanitizer and ThreadSanitizer).
//  - "Device" memory cannot be touched by the host: its addresses are a PROT_NONE mapping, and the
//    operations work on a second mapping of the same pages. A host that dereferences them crashes.
//    Freeing device memory while work on it is pending stops the process when that work runs.
//  - Operands in host memory that was neither allocated nor registered here are refused: a device
//    would not reach them.
//  - Memory of another process is played by a memfd. Its event can be held, and work on the memory
//    that runs meanwhile stops the process: it did not wait.
//  - Faults can be injected, and allocations are counted.
//
// The operations themselves are the CPU's. The destructor first runs all pending work, held or not;
// the peer's event must be released before.
//
// Thread-safe, as every Backend; a Lane belongs to one thread at a time.
#ifndef SEMSHARE_TESTS_TESTING_LATE_BACKEND_H_
#define SEMSHARE_TESTS_TESTING_LATE_BACKEND_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/backend.h"

namespace semshare {

enum class LateOp {
  kAllocate,
  kRegisterHost,
  kOpenPeerMemory,
  kAcquireLane,
  kRecord,
  kCopy,
  kRealign,
  kProject,
  kSignature,
  kHammingTopK,
  kTokenCodes,
  kNearestCode,
  kChecksum,
};

struct LateBackendOptions {
  int lanes = 4;
  // Infinite: work runs only when it is waited for, so nothing depends on time.
  absl::Duration delay = absl::Milliseconds(1);
};

class LateBackend : public Backend {
 public:
  // The next operation of this kind fails when its turn comes: its outputs stay untouched, later
  // work of its lane is skipped until the lane is acquired again, and events after it return
  // `status`. A batch of realigns is one operation. kAllocate, kRegisterHost, kOpenPeerMemory,
  // kAcquireLane and kRecord have no later: they return it at once. Several calls for one kind fail
  // as many operations, in order. REQUIRES: status is not OK.
  virtual void FailNext(LateOp op, absl::Status status) = 0;

  // The next call for this kind returns `status` and queues nothing. REQUIRES: status is not OK.
  virtual void RefuseNext(LateOp op, absl::Status status) = 0;

  // Until ReleaseWork, no work starts, not even work that is waited for.
  virtual void HoldWork() = 0;
  virtual void ReleaseWork() = 0;

  // What the owner of the memfd `fd`, which stays the caller's, sends for OpenPeerMemory: all of
  // it, to be narrowed by the caller. Every memory that is exported has the same event.
  virtual PeerMemoryHandle ExportPeerMemory(int fd) = 0;
  // The peer has recorded its event, and what comes before it is not done until ReleasePeerEvent.
  virtual void HoldPeerEvent() = 0;
  virtual void ReleasePeerEvent() = 0;
  // Lanes that stand waiting for the peer's event.
  virtual int64_t peer_waits() const = 0;
  // Peer memory that is open.
  virtual int64_t open_peers() const = 0;

  // Successful calls of Allocate so far.
  virtual int64_t allocations() const = 0;
  // Bytes of device and host memory that are allocated now.
  virtual int64_t allocated_bytes() const = 0;
};

std::unique_ptr<LateBackend> NewLateBackend(const LateBackendOptions& options = {});

}  // namespace semshare

#endif  // SEMSHARE_TESTS_TESTING_LATE_BACKEND_H_
