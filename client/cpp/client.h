// The broker's client: every call of CacheBroker and CacheAdmin, with deadlines, over one channel.
//
//   auto client = Client::Create({.address = "127.0.0.1:7700"});
//   auto found = (*client)->FindMatch(request);
//   if (found.ok() && found->lease.held()) {
//     (*client)->Read(found->lease, {}, IntoViews(views));
//     found->lease.Release(outcome);
//   }
//
// A cache failure must never break a worker: treat every error of these calls as a miss, and count
// it by its code. Codes are those of the contract, and UNAVAILABLE or DEADLINE_EXCEEDED where the
// broker was not reached in time; INTERNAL says that the broker's answer was against the contract.
//
// Thread-safe: Client. Not thread-safe: Lease (but one lease may be read by several threads).
// Ownership: a Client owns its channel; leases share it and may outlive the Client.
#ifndef SEMSHARE_CLIENT_CPP_CLIENT_H_
#define SEMSHARE_CLIENT_CPP_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cpp/kv_rows.h"
#include "semshare/v1/cache_admin.pb.h"
#include "semshare/v1/cache_broker.pb.h"
#include "semshare/v1/model.pb.h"

namespace semshare::client {

class RpcChannel;

// How long a call may take as a whole, connecting included. All > 0.
struct ClientDeadlines {
  // Calls about models, uploads, admin, health.
  int64_t control_ms = 10'000;
  // FindMatch, which may bring chunks to memory.
  int64_t find_ms = 5'000;
  // A whole stream of rows or of a model's table, the caller's own source and sink included.
  int64_t transfer_ms = 120'000;
  // ReleaseMatch; so long can a lease's destructor block.
  int64_t release_ms = 1'000;
};

struct ClientOptions {
  // HOST:PORT, or another target that gRPC knows (unix:PATH).
  std::string address = "127.0.0.1:7700";
  ClientDeadlines deadlines;

  // INVALID_ARGUMENT, naming the field.
  absl::Status Validate() const;
};

// A match and the broker's promise to keep its chunks. Gives itself back when it is destroyed,
// exactly once, best effort: a broker that is gone lets the lease time out. Move-only.
class Lease {
 public:
  // Holds nothing.
  Lease() = default;
  Lease(Lease&& other) noexcept = default;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease();

  bool held() const { return channel_ != nullptr; }

  // REQUIRES: the lease is, or was, held.
  const v1::Match& match() const { return match_; }

  // Gives the lease back and says what became of the match. The lease holds nothing afterwards,
  // whatever the answer. FAILED_PRECONDITION if it held nothing before.
  absl::Status Release(const v1::MatchOutcome& outcome);

 private:
  friend class Client;
  Lease(std::shared_ptr<RpcChannel> channel, int64_t release_ms, v1::Match match);

  // Null: nothing is held.
  std::shared_ptr<RpcChannel> channel_;
  int64_t release_ms_ = 0;
  v1::Match match_;
};

// Either the lease is held, or no_match says why not. The answer's plan and segments were checked
// against the target's length.
struct FindResult {
  Lease lease;
  v1::NoMatch no_match;
};

struct PutResult {
  std::string reference_id;
  bool visible = false;
  bool durable = false;
  // Tokens and bytes that had to be sent; 0 if the broker held all of it.
  uint32_t sent_tokens = 0;
  int64_t sent_bytes = 0;
};

struct ReadOptions {
  // Layers [layer_begin, layer_end); layer_end 0: all.
  uint32_t layer_begin = 0;
  uint32_t layer_end = 0;
  // Payload bytes a frame at most; 0: the server's limit.
  uint32_t max_frame_payload_bytes = 0;
  // Lets the client check row sizes and plane counts too.
  std::optional<KvShape> shape;
};

// What RegisterModel sends. The spans must hold what the spec's digests were made of, see
// model_digest.h.
struct ModelData {
  // [vocab_size][embedding_width]. Empty: the broker has the model already.
  absl::Span<const float> embedding_table;
  // One number a token, or none.
  absl::Span<const float> token_weights;
  std::vector<v1::ProbeSample> probes;
};

// What grpc.health.v1 answers; the numbers are that protocol's.
enum class HealthState { kUnknown = 0, kServing = 1, kNotServing = 2, kServiceUnknown = 3 };

// Told how far a read into shared memory is.
using LayerSink = std::function<void(uint32_t layer)>;

class Client {
 public:
  // Does not connect: a broker that is not there makes each call UNAVAILABLE. INVALID_ARGUMENT if
  // the options are wrong.
  static absl::StatusOr<std::unique_ptr<Client>> Create(const ClientOptions& options);

  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  absl::StatusOr<v1::GetServerInfoResponse> ServerInfo() const;

  // Whether a model of this fingerprint is registered.
  absl::StatusOr<bool> GetModel(const std::string& fingerprint) const;

  // REQUIRES of the broker: `spec` carries its digests and fingerprint, see model_digest.h.
  absl::StatusOr<v1::RegisterModelResponse> RegisterModel(const v1::ModelSpec& spec,
                                                          const ModelData& data) const;

  // Stores a reference: opens an upload, sends the ranges that the broker lacks and commits. The
  // call is the caller's word that every row is exact (see WriteKvFrame.exact). `source` is asked
  // for missing rows only. On failure nothing is stored.
  absl::StatusOr<PutResult> Put(const v1::BeginPutRequest& request, const KvShape& shape,
                                const RowSource& source) const;

  // A miss is an answer, not an error.
  absl::StatusOr<FindResult> FindMatch(const v1::FindMatchRequest& request) const;

  // Streams the match's rows, realigned, into `sink`. On failure the sink may have seen a part.
  // FAILED_PRECONDITION if the lease holds nothing.
  absl::Status Read(const Lease& lease, const ReadOptions& options, const RowSink& sink) const;

  // Lets the broker write the match's rows, realigned, to where `target` says (shared_buffer.h).
  // `progress` is called with each layer up to which all rows are in place. On failure the broker
  // may still be writing for a moment. FAILED_PRECONDITION if the lease holds nothing.
  absl::Status ReadInto(const Lease& lease, const ReadOptions& options, const v1::KvView& target,
                        const LayerSink& progress) const;

  // As Put, but the broker takes the missing rows of all `layers` layers from where `source` says.
  // After a failure it may still be reading for a moment.
  absl::StatusOr<PutResult> PutFrom(const v1::BeginPutRequest& request, const v1::KvView& source,
                                    uint32_t layers) const;

  // Tells how a reuse compared with a full prefill of the same prompt.
  absl::StatusOr<v1::ReportShadowCheckResponse> ReportShadowCheck(
      const v1::ReportShadowCheckRequest& request) const;

  absl::StatusOr<v1::ListModelsResponse> ListModels() const;
  absl::Status Pin(const v1::ReferenceName& reference, bool pinned) const;
  absl::Status Delete(const v1::ReferenceName& reference) const;
  // One page.
  absl::StatusOr<v1::ListResponse> List(const v1::ListRequest& request) const;
  absl::StatusOr<v1::DescribeResponse> Describe(const v1::ReferenceName& reference) const;
  // Removes everything the caller's tenant has.
  absl::StatusOr<v1::DeleteTenantResponse> DeleteTenant() const;
  absl::StatusOr<v1::TrimByTimeResponse> TrimByTime(int64_t used_before_unix_ms) const;
  absl::StatusOr<v1::StatsResponse> Stats() const;
  absl::StatusOr<v1::ShadowStatsResponse> ShadowStats() const;
  absl::StatusOr<v1::ResetShadowResponse> ResetShadow(const v1::ResetShadowRequest& request) const;
  absl::Status Drain() const;

  // Asks grpc.health.v1. Empty: the server as a whole. A service the server does not know is
  // NOT_FOUND.
  absl::StatusOr<HealthState> Health(const std::string& service) const;

 private:
  explicit Client(const ClientOptions& options);

  absl::StatusOr<PutResult> SendRows(const v1::BeginPutResponse& upload, const KvShape& shape,
                                     const RowSource& source) const;

  // Constant after construction; the channel provides its own synchronisation.
  const ClientDeadlines deadlines_;
  const std::shared_ptr<RpcChannel> channel_;
};

}  // namespace semshare::client

namespace semshare {

using client::Client;
using client::ClientOptions;

}  // namespace semshare

#endif  // SEMSHARE_CLIENT_CPP_CLIENT_H_
