// BrokerHarness: a broker over a backend of choice and a disk in memory, with a clock that the test
// sets, and the put and read of a worker in one call each. Not thread-safe.
#ifndef SEMSHARE_TESTS_SERVER_BROKER_HARNESS_H_
#define SEMSHARE_TESTS_SERVER_BROKER_HARNESS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/broker.h"
#include "server/match_reader.h"
#include "tests/server/tiny_engine.h"
#include "tests/storage/backends.h"
#include "tests/testing/memory_disk_tier.h"

namespace semshare::testing {

class BrokerHarness {
 public:
  explicit BrokerHarness(const BackendCase& backend);

  static BrokerOptions DefaultOptions();
  // Builds the broker anew over the same tier: a restart. Destroys the old one first.
  void Restart(const BrokerOptions& options = DefaultOptions());
  absl::Status RegisterModel() { return RegisterModel(engine); }
  absl::Status RegisterModel(const TinyEngine& other);

  PutRequest Put(const std::vector<uint32_t>& ids) const;
  FindRequest Find(const std::vector<uint32_t>& ids) const;
  // The whole put: begin, frames of at most 100 tokens, commit. Its prompt joins `committed`.
  absl::StatusOr<PutResult> Store(const PutRequest& request);
  // Everything but the commit.
  absl::StatusOr<std::unique_ptr<Upload>> Fill(const PutRequest& request);
  // A match, or the reason as NOT_FOUND text.
  absl::StatusOr<MatchResult> Match(const FindRequest& request);
  // All rows of a plane of a layer of a lease, by row number.
  absl::StatusOr<std::vector<float>> Read(const MatchLeasePtr& lease, int layer, int plane);
  // Largest relative error of the lease's K rows against the engine's own K at the target
  // positions; V rows must be equal (a difference counts as 1).
  double WorstError(const MatchLeasePtr& lease, const std::vector<uint32_t>& target);

  // Whether every prompt of `committed` is found whole, each row as the engine computes it.
  absl::Status CheckCommitted();

  TinyEngine engine{7};
  int64_t now_ms = 1'000'000;
  MemoryDiskTier disk;
  DiskTier* tier = &disk;  // what Restart builds the broker over
  std::unique_ptr<Backend> backend;
  Buffer staging;
  std::unique_ptr<Broker> broker;
  std::vector<std::string> warnings;
  std::vector<std::vector<uint32_t>> committed;
};

inline constexpr const char kTenant[] = "default";

}  // namespace semshare::testing

#endif  // SEMSHARE_TESTS_SERVER_BROKER_HARNESS_H_
