// Broker: the application. Every RPC is one call here; requests and answers are plain values, and
// nothing below this header knows of gRPC.
//
// Thread-safe. The Backend and the DiskTier must outlive it. Calls may block on disk and device:
// run them on worker threads. No disk or device work is done under a lock.
// Errors are those of the contract (proto/semshare/v1/cache_broker.proto).
#ifndef SEMSHARE_SERVER_BROKER_H_
#define SEMSHARE_SERVER_BROKER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"
#include "server/lease_table.h"
#include "server/limits.h"
#include "server/match/aligner.h"
#include "server/match/planner.h"
#include "server/metrics.h"
#include "server/model_registry.h"
#include "server/shadow_monitor.h"
#include "server/transport/region_table.h"
#include "server/upload.h"
#include "storage/catalog.h"
#include "storage/chunk_store.h"

namespace semshare {

struct BrokerOptions {
  Limits limits;
  ChunkStoreOptions chunks;
  RegionLimits regions;
  int64_t model_memory_bytes = int64_t{4} << 30;
  int64_t lease_timeout_ms = 30000;
  int64_t max_lease_ms = 600000;      // streams do not extend a lease beyond this
  int64_t lease_memory_ms = 600000;   // how long an ended lease is remembered
  int64_t upload_timeout_ms = 30000;  // between BeginPut and WriteKv
  double sigma_limit = 0.3;           // of the sentinels (PlanRequest); 0: no gate
  double default_kl_target = 0.01;    // nats, first token
  double default_minimum_gain = 1.2;  // predicted prefill over predicted reuse; 0: no cost gate
  double minimum_coverage = 0.1;      // share of the target that a match must cover
  // Above this predicted share an approximate match is a miss: a few shared phrases of unrelated
  // prompts would cost fidelity and save nothing.
  double maximum_recomputed_share = 0.75;
  int64_t minimum_match_tokens = 64;
  bool allow_fuzzy = false;  // the tenant's policy for MATCH_MODE_FUZZY
  ShadowOptions shadow;      // when shadow checks switch a kind of match off
  absl::Status Validate() const;
};

struct PutRequest {
  std::string model;  // fingerprint
  std::vector<uint32_t> token_ids;
  std::vector<ContentTag> tags;
  std::vector<float> importance;
  int64_t ttl_ms = 0;
  int priority = 0;
  bool durable = true;
  std::string alias;
};

struct PutTicket {
  std::string upload_id;  // empty: nothing is missing
  ReferenceId reference;
  std::vector<TokenRange> missing;
  int64_t timeout_ms = 0;
  bool visible = false;
  bool durable = false;
};

struct PutResult {
  ReferenceId reference;
  bool visible = false;
  bool durable = false;
};

struct FindRequest {
  std::string model;
  std::vector<uint32_t> token_ids;
  std::vector<ContentTag> tags;
  MatchMode mode = MatchMode::kToken;
  Preset preset = Preset::kAuto;
  double kl_target = 0;  // 0: the default
  int max_references = 0;
  CostModel cost;
  double minimum_gain = 0;
  int64_t question_tokens = 0;  // 0: 20
  PaperOptions paper;           // kSemShareKv
};

// Values of the contract's NoMatchReason.
enum class NoMatchReason {
  kNoCandidate = 1,
  kLowCoverage = 2,
  kCost = 3,
  kChunksUnavailable = 4,
  kShortPrompt = 5,
  kBusy = 6,
  kDisabled = 7,
};

struct NoMatch {
  NoMatchReason reason = NoMatchReason::kNoCandidate;
  std::string detail;
};

struct MatchResult {
  MatchLeasePtr lease;
  int64_t lease_timeout_ms = 0;
  ResultKind kind = ResultKind::kMiss;
  Plan plan;
  int64_t transfer_bytes = 0;
  CostPrediction predicted;
};

using FindResult = std::variant<MatchResult, NoMatch>;

struct MatchOutcome {
  ResultKind kind = ResultKind::kMiss;
  uint64_t recomputed_token_layers = 0;
  double seconds_saved = 0;     // negative: reuse was slower
  std::string fallback_reason;  // "sigma", or whatever else made the worker fall back
};

// How a reuse compared with a full prefill of the same prompt.
struct ShadowCheck {
  std::string model;                    // fingerprint
  ResultKind kind = ResultKind::kMiss;  // of the match: kExactPrefix to kSemShareKv
  Preset preset = Preset::kAuto;
  double kl_first = 0;  // KL(full || reuse) of the first token, nats
  bool same_token = false;
};

struct ShadowEntry {
  std::string model;  // fingerprint
  ResultKind kind = ResultKind::kMiss;
  ShadowFigures figures;
};

// A reference by id, by alias, or by a prefix of its hexadecimal id; the first that is set.
struct ReferenceName {
  std::string model;  // empty: the only registered one
  ReferenceId id;
  std::string alias;
  std::string id_prefix;
};

struct ReferenceDetail {
  ReferencePtr reference;
  std::string model;
  int64_t chunks = 0;
  int64_t shared_chunks = 0;
  int64_t device_bytes = 0;
  int64_t disk_bytes = 0;
};

struct BrokerStats {
  int64_t models = 0;
  int64_t references = 0;
  ChunkStoreStats chunks;
  int64_t disk_bytes = 0;
  int64_t leases = 0;
  int64_t uploads = 0;
  RegionTable::Stats regions;
  // Namespaces that a kind of match is off for, indexed by ResultKind's value.
  std::array<int64_t, kResultKinds> shadow_disabled{};
  bool draining = false;
};

class Broker {
 public:
  // Milliseconds since the Unix epoch; tests supply their own.
  using Clock = std::function<int64_t()>;

  // Takes all memory and rebuilds models, catalog and indexes from disk. `warnings` receives what
  // was skipped.
  static absl::StatusOr<std::unique_ptr<Broker>> Create(const BrokerOptions& options,
                                                        Backend* backend, DiskTier* disk,
                                                        ModelInfoParser parser, Clock clock,
                                                        std::vector<std::string>* warnings);
  ~Broker();

  const BrokerOptions& options() const { return options_; }
  Backend* backend() const { return backend_; }
  MemorySpan arena() const { return chunks_->arena(); }
  Metrics& metrics() { return metrics_; }
  // Memory that workers of this host share.
  RegionTable* regions() { return &regions_; }
  int64_t now_ms() const { return clock_(); }

  // --- models ---
  absl::StatusOr<bool> HasModel(std::string_view tenant, std::string_view fingerprint) const;
  absl::StatusOr<RegisterResult> RegisterModel(std::string_view tenant,
                                               const ModelRegistration& registration);
  std::vector<ModelPtr> ListModels(std::string_view tenant) const;

  // --- puts ---
  absl::StatusOr<PutTicket> BeginPut(std::string_view tenant, const PutRequest& request);
  // Hands over an upload that BeginPut opened; the caller owns it from here on.
  absl::StatusOr<std::unique_ptr<Upload>> TakeUpload(std::string_view tenant,
                                                     std::string_view upload_id);
  // INVALID_ARGUMENT if rows are missing.
  absl::StatusOr<PutResult> Commit(std::unique_ptr<Upload> upload);

  // --- matches ---
  absl::StatusOr<FindResult> FindMatch(std::string_view tenant, const FindRequest& request);
  // Makes what the first read of a match needs. Does nothing where many wait for theirs.
  void PrepareRead(const MatchLeasePtr& lease);
  absl::StatusOr<MatchLeasePtr> OpenLease(std::string_view tenant, std::string_view lease_id);
  absl::Status ReleaseMatch(std::string_view tenant, std::string_view lease_id,
                            const MatchOutcome& outcome);
  // NOT_FOUND for an unknown model, INVALID_ARGUMENT for a kind that is no match's, or a KL that is
  // not finite or below 0 by more than rounding.
  absl::StatusOr<ShadowMonitor::Verdict> ReportShadowCheck(std::string_view tenant,
                                                           const ShadowCheck& check);

  // --- administration ---
  // DATA_LOSS if the record of a chunk was found bad: putting the prompt again heals it.
  absl::StatusOr<ReferenceDetail> Describe(std::string_view tenant, const ReferenceName& name);
  absl::Status SetPinned(std::string_view tenant, const ReferenceName& name, bool pinned);
  absl::Status Delete(std::string_view tenant, const ReferenceName& name);
  // References of one model (or of all, fingerprint empty) after (ns, id), ordered.
  absl::StatusOr<std::vector<ReferencePtr>> List(std::string_view tenant,
                                                 std::string_view fingerprint,
                                                 const NamespaceId& after_ns,
                                                 const ReferenceId& after_id, int limit);
  struct Deleted {
    int64_t references = 0;
    int64_t models = 0;
  };
  absl::StatusOr<Deleted> DeleteTenant(std::string_view tenant);
  absl::StatusOr<int64_t> TrimByTime(std::string_view tenant, int64_t used_before_ms);
  BrokerStats Stats() const;
  // What was reported since the start, by model and kind. Not kept on disk.
  std::vector<ShadowEntry> ShadowStats(std::string_view tenant) const;
  // Forgets the checks of one kind of a model (fingerprint empty: of the only one), or of all
  // (nullopt), and with them that it is off. Returns how many entries there were.
  absl::StatusOr<int> ResetShadow(std::string_view tenant, std::string_view fingerprint,
                                  std::optional<ResultKind> kind);
  // The fingerprint of a reference's model, empty if it is gone.
  std::string FingerprintOf(const NamespaceId& ns) const;

  // Refuses new puts and finds from now on.
  void Drain() { draining_.store(true); }
  bool draining() const { return draining_.load(); }

  // Ends what timed out, trims memory, deletes what was forgotten. Called once a second by the
  // process, and by tests whenever they like.
  absl::Status Maintain();

 private:
  struct PendingUpload {
    std::string tenant;
    int64_t deadline_ms = 0;
    std::unique_ptr<Upload> upload;
  };
  // A candidate reference and what was made of it.
  struct Found {
    std::vector<ReferencePtr> references;  // by Segment::reference
    Alignment alignment;
  };

  Broker(const BrokerOptions& options, Backend* backend, DiskTier* disk, ModelInfoParser parser,
         Clock clock);
  absl::Status Load(std::vector<std::string>* warnings);
  absl::Status CheckOpen() const;

  // broker_put.cc
  absl::Status CheckPut(const Model& model, const PutRequest& request) const;
  absl::StatusOr<Manifest> MakeManifest(const Model& model, const PutRequest& request) const;
  absl::Status ClaimUpload();
  int64_t UploadsLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<PutTicket> PutHeld(Manifest manifest, std::vector<ChunkRef> held);
  absl::StatusOr<std::vector<ChunkDraft>> ReserveMissing(const std::vector<ChunkMeta>& metas,
                                                         const std::vector<ChunkRef>& held);
  absl::StatusOr<ChunkDraft> ReserveOne(const ChunkMeta& meta);
  bool EvictOneMemoryReference();
  absl::StatusOr<PutResult> Store(Manifest manifest, std::vector<ChunkRef> refs);

  // broker_match.cc
  absl::Status CheckFind(const Model& model, const FindRequest& request) const;
  absl::StatusOr<std::vector<Candidate>> FindCandidates(const Model& model,
                                                        const FindRequest& request) const;
  absl::StatusOr<Found> FindSources(const Model& model, const FindRequest& request);
  absl::StatusOr<Found> AlignPaper(const Model& model, const FindRequest& request,
                                   std::vector<ReferencePtr> sources, int distance);
  FuzzyMatcher MakeFuzzyMatcher(const Model& model, const FindRequest& request,
                                const std::vector<ReferencePtr>& sources);
  Plan PlanFor(const Model& model, const FindRequest& request, const Found& found);
  absl::StatusOr<FindResult> Finish(ModelPtr model, std::string_view tenant,
                                    const FindRequest& request, Found found);
  absl::StatusOr<std::shared_ptr<MatchLease>> PinMatch(ModelPtr model, std::string_view tenant,
                                                       int64_t target_tokens, Found found);
  FindResult Miss(NoMatchReason reason, std::string detail);

  // broker_admin.cc
  absl::StatusOr<ModelPtr> ResolveModel(std::string_view tenant, std::string_view fingerprint);
  absl::StatusOr<ReferencePtr> Resolve(std::string_view tenant, const ReferenceName& name,
                                       ModelPtr* model);
  absl::StatusOr<bool> Remove(const ReferencePtr& reference);
  absl::Status RemoveAll(const NamespaceId& ns, int64_t* removed);
  void RemoveExpired(int64_t now_ms);

  // broker.cc
  absl::Status SyncIndex(const Manifest& manifest);
  absl::Status Reindex(const NamespaceId& ns);

  const BrokerOptions options_;
  Backend* const backend_;
  DiskTier* const disk_;
  const Clock clock_;

  // Synchronised by themselves.
  Metrics metrics_;
  ModelRegistry models_;
  std::unique_ptr<ChunkStore> chunks_;
  std::unique_ptr<Catalog> catalog_;
  RegionTable regions_;
  std::atomic<int> prepared_{0};  // leases whose rows wait for a read
  LeaseTable leases_;
  ShadowMonitor shadow_;
  std::atomic<bool> draining_{false};

  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, PendingUpload> uploads_ ABSL_GUARDED_BY(mutex_);
  // Between the check of the limit and their place in uploads_.
  int64_t beginning_uploads_ ABSL_GUARDED_BY(mutex_) = 0;
  // Uploads that a stream has taken count until they are committed or dropped.
  std::shared_ptr<std::atomic<int64_t>> open_uploads_;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_BROKER_H_
