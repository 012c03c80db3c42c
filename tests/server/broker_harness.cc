#include "tests/server/broker_harness.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/base/status_macros.h"

namespace semshare::testing {
namespace {

constexpr int64_t kFrameTokens = 100;
constexpr int64_t kStagingBytes = 64 << 10;

std::vector<int64_t> Positions(int64_t begin, int64_t count) {
  std::vector<int64_t> positions(count);
  for (int64_t i = 0; i < count; ++i) positions[i] = begin + i;
  return positions;
}

}  // namespace

BrokerHarness::BrokerHarness(const BackendCase& backend_case) {
  absl::StatusOr<std::unique_ptr<Backend>> made = backend_case.make();
  SEMSHARE_CHECK(made.ok());
  backend = *std::move(made);
  absl::StatusOr<Buffer> buffer = backend->Allocate(MemoryKind::kHost, kStagingBytes);
  SEMSHARE_CHECK(buffer.ok());
  staging = *std::move(buffer);
  Restart();
}

BrokerOptions BrokerHarness::DefaultOptions() {
  BrokerOptions options;
  options.chunks.device_memory_bytes = kMaxChunkBytes;  // one superblock
  options.chunks.staging_bytes = kMaxChunkBytes;
  options.limits.max_leases = 4;
  options.limits.max_uploads = 2;
  options.limits.max_models = 2;
  return options;
}

void BrokerHarness::Restart(const BrokerOptions& options) {
  broker = nullptr;
  absl::StatusOr<std::unique_ptr<Broker>> made = Broker::Create(
      options, backend.get(), tier, engine.Parser(), [this] { return now_ms; }, &warnings);
  SEMSHARE_CHECK(made.ok());
  broker = *std::move(made);
}

absl::Status BrokerHarness::RegisterModel(const TinyEngine& other) {
  return broker->RegisterModel(kTenant, other.Registration()).status();
}

PutRequest BrokerHarness::Put(const std::vector<uint32_t>& ids) const {
  PutRequest request;
  request.model = engine.fingerprint();
  request.token_ids = ids;
  return request;
}

FindRequest BrokerHarness::Find(const std::vector<uint32_t>& ids) const {
  FindRequest request;
  request.model = engine.fingerprint();
  request.token_ids = ids;
  return request;
}

absl::StatusOr<std::unique_ptr<Upload>> BrokerHarness::Fill(const PutRequest& request) {
  SEMSHARE_ASSIGN_OR_RETURN(const PutTicket ticket, broker->BeginPut(kTenant, request));
  if (ticket.upload_id.empty()) return absl::AlreadyExistsError("nothing is missing");
  SEMSHARE_ASSIGN_OR_RETURN(std::unique_ptr<Upload> upload,
                            broker->TakeUpload(kTenant, ticket.upload_id));
  for (int layer = 0; layer < TinyEngine::kLayers; ++layer) {
    for (int plane = 0; plane < 2; ++plane) {
      for (const TokenRange& range : ticket.missing) {
        for (int64_t at = range.begin; at < range.end; at += kFrameTokens) {
          const int64_t tokens = std::min(kFrameTokens, range.end - at);
          const std::vector<uint32_t> ids(request.token_ids.begin() + at,
                                          request.token_ids.begin() + at + tokens);
          const std::vector<float> rows = engine.Rows(layer, plane, ids, Positions(at, tokens));
          const std::string_view bytes(reinterpret_cast<const char*>(rows.data()),
                                       rows.size() * sizeof(float));
          // In two pieces that cut a row, as slices do.
          const std::string_view pieces[] = {bytes.substr(0, 13), bytes.substr(13)};
          SEMSHARE_ASSIGN_OR_RETURN(Lane lane, backend->AcquireLane(absl::Seconds(10)));
          SEMSHARE_RETURN_IF_ERROR(
              upload->Write({true, layer, plane, at, tokens, false}, pieces, backend.get(), lane));
        }
      }
    }
  }
  return upload;
}

absl::StatusOr<PutResult> BrokerHarness::Store(const PutRequest& request) {
  SEMSHARE_ASSIGN_OR_RETURN(std::unique_ptr<Upload> upload, Fill(request));
  SEMSHARE_ASSIGN_OR_RETURN(const PutResult result, broker->Commit(std::move(upload)));
  committed.push_back(request.token_ids);
  return result;
}

absl::Status BrokerHarness::CheckCommitted() {
  for (const std::vector<uint32_t>& ids : committed) {
    SEMSHARE_ASSIGN_OR_RETURN(const MatchResult match, Match(Find(ids)));
    const double error = WorstError(match.lease, ids);
    SEMSHARE_RETURN_IF_ERROR(broker->ReleaseMatch(kTenant, match.lease->id, {}));
    if (match.kind != ResultKind::kExactPrefix || error != 0) {
      return absl::DataLossError("a committed prompt came back as kind " +
                                 std::to_string(static_cast<int>(match.kind)) + ", error " +
                                 std::to_string(error));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<MatchResult> BrokerHarness::Match(const FindRequest& request) {
  SEMSHARE_ASSIGN_OR_RETURN(FindResult result, broker->FindMatch(kTenant, request));
  if (const auto* miss = std::get_if<NoMatch>(&result)) {
    return absl::NotFoundError(std::to_string(static_cast<int>(miss->reason)) + " " + miss->detail);
  }
  return std::get<MatchResult>(std::move(result));
}

absl::StatusOr<std::vector<float>> BrokerHarness::Read(const MatchLeasePtr& lease, int layer,
                                                       int plane) {
  SEMSHARE_ASSIGN_OR_RETURN(
      const std::unique_ptr<MatchReader> reader,
      MatchReader::Create(lease, layer, layer + 1, kStagingBytes, broker->arena()));
  std::vector<float> rows;
  while (!reader->done()) {
    SEMSHARE_ASSIGN_OR_RETURN(Lane lane, backend->AcquireLane(absl::Seconds(10)));
    SEMSHARE_ASSIGN_OR_RETURN(const ReadFrame frame,
                              reader->EnqueueNext(backend.get(), lane, staging.span()));
    SEMSHARE_ASSIGN_OR_RETURN(const Event done, backend->Record(lane));
    SEMSHARE_RETURN_IF_ERROR(done.Wait());
    if (frame.plane != plane) continue;
    const size_t at = rows.size();
    rows.resize(at + frame.bytes / sizeof(float));
    std::memcpy(rows.data() + at, staging.span().host(), frame.bytes);
  }
  return rows;
}

double BrokerHarness::WorstError(const MatchLeasePtr& lease, const std::vector<uint32_t>& target) {
  std::vector<uint32_t> ids;
  std::vector<int64_t> positions;
  for (const Segment& segment : lease->segments) {
    for (int64_t i = 0; i < segment.tokens; ++i) {
      ids.push_back(target[segment.target_begin + i]);
      positions.push_back(segment.target_begin + i);
    }
  }
  double worst = 0;
  for (int layer = 0; layer < TinyEngine::kLayers; ++layer) {
    for (int plane = 0; plane < 2; ++plane) {
      const std::vector<float> expected = engine.Rows(layer, plane, ids, positions);
      const absl::StatusOr<std::vector<float>> actual = Read(lease, layer, plane);
      if (!actual.ok() || actual->size() != expected.size()) return 1e9;
      const size_t width = TinyEngine::kHeads * TinyEngine::kWidth;
      for (size_t row = 0; row < ids.size(); ++row) {
        double difference = 0;
        double norm = 0;
        for (size_t e = row * width; e < (row + 1) * width; ++e) {
          difference += std::pow(double{expected[e]} - (*actual)[e], 2);
          norm += std::pow(double{expected[e]}, 2);
        }
        if (plane == 1 && difference != 0) return 1;
        if (!(std::sqrt(difference / norm) <= 1e9)) return 1e9;  // NaN
        worst = std::max(worst, std::sqrt(difference / norm));
      }
    }
  }
  return worst;
}

}  // namespace semshare::testing
