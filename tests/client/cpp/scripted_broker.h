// A broker that answers what a test tells it to, over real gRPC on a port of its own, and remembers
// what it was asked.
//
// Thread-safe: the recorded calls. The script is set before the calls that it is for.
// Ownership: the broker owns its server, which stops when it is destroyed.
#ifndef SEMSHARE_TESTS_CLIENT_CPP_SCRIPTED_BROKER_H_
#define SEMSHARE_TESTS_CLIENT_CPP_SCRIPTED_BROKER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "semshare/v1/cache_admin.pb.h"
#include "semshare/v1/cache_broker.pb.h"

namespace semshare::client::testing {

struct BrokerScript {
  v1::GetServerInfoResponse info;
  bool model_known = false;
  absl::Status register_status;
  absl::StatusOr<v1::BeginPutResponse> begin_put = absl::UnimplementedError("begin_put");
  // WriteKv ends after this many frames, or at the stream's end.
  size_t write_frames_at_most = SIZE_MAX;
  absl::StatusOr<v1::WriteKvResponse> write = absl::UnimplementedError("write");
  absl::StatusOr<v1::FindMatchResponse> find = absl::UnimplementedError("find");
  // Serialised messages, right or wrong, and how the stream ends after them.
  std::vector<std::string> read_messages;
  absl::Status read_status;
  // The stream stays open until the client gives up.
  bool read_hangs = false;
  absl::Status release_status;

  v1::ListModelsResponse models;
  // Page i has the token "i"; each page's own next_page_token is sent as it stands.
  std::vector<v1::ListResponse> pages;
  // Asked for each name by Describe, Delete and Pin.
  std::function<absl::Status(const v1::ReferenceName&)> knows;
  v1::DescribeResponse describe;
  v1::StatsResponse stats;
  v1::ShadowStatsResponse shadow;
};

struct BrokerRecord {
  std::vector<v1::RegisterModelFrame> model_frames;
  std::vector<v1::BeginPutRequest> puts;
  std::vector<v1::WriteKvFrame> writes;
  // A WriteKv stream ended without a commit.
  bool write_dropped = false;
  std::vector<v1::FindMatchRequest> finds;
  std::vector<v1::ReadKvRequest> reads;
  int reads_cancelled = 0;
  std::vector<v1::ReleaseMatchRequest> releases;
  std::vector<v1::ReportShadowCheckRequest> shadow_checks;
  std::vector<v1::ResetShadowRequest> shadow_resets;
  std::vector<v1::ReferenceName> names;
  std::vector<v1::PinRequest> pins;
  std::vector<v1::TrimByTimeRequest> trims;
  int deleted_tenants = 0;
  int drains = 0;
};

class ScriptedBroker {
 public:
  ScriptedBroker();
  ~ScriptedBroker();

  const std::string& address() const;
  BrokerScript& script();
  BrokerRecord record() const;

  // Waits until the record satisfies `condition`: what follows a cancelled call comes later than
  // the client's return.
  void WaitFor(const std::function<bool(const BrokerRecord&)>& condition) const;

  void SetServing(bool serving);

  // Breaks all connections now.
  void Stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace semshare::client::testing

#endif  // SEMSHARE_TESTS_CLIENT_CPP_SCRIPTED_BROKER_H_
