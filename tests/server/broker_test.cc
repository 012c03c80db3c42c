// The broker end to end, below the RPC skin: what a worker stores it gets back realigned, equal to
// what the engine itself computes at the other position; and nothing that goes wrong loses
// anything.
#include "server/broker.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/broker_harness.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;

Ids Concat(const Ids& a, const Ids& b) {
  Ids all = a;
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

Ids Slice(const Ids& ids, int64_t begin, int64_t end) {
  return Ids(ids.begin() + begin, ids.begin() + end);
}

// Enough digits to name one of a few references.
std::string IdPrefix(const Ids& ids) {
  const NamespaceId ns = MakeNamespaceId(kTenant, TinyEngine(7).fingerprint());
  return MakeReferenceId(ns, ids, {}).ToHex().substr(0, 16);
}

class BrokerTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  BrokerTest() : harness_(GetParam()) { EXPECT_TRUE(harness_.RegisterModel().ok()); }
  Broker& broker() { return *harness_.broker; }
  void ExpectCommittedIntact() {
    const absl::Status status = harness_.CheckCommitted();
    EXPECT_TRUE(status.ok()) << status;
  }

  BrokerHarness harness_;
  const Ids document_ = RandomIds(700, 1);
};

INSTANTIATE_TEST_SUITE_P(Backends, BrokerTest, ::testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(BrokerTest, ShiftedDocumentComesBackAsTheEngineComputesIt) {
  const auto put = harness_.Store(harness_.Put(document_));
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_TRUE(put->visible);
  EXPECT_TRUE(put->durable);
  const Ids target = Concat(RandomIds(90, 2), document_);
  const auto match = harness_.Match(harness_.Find(target));
  ASSERT_TRUE(match.ok()) << match.status();
  EXPECT_EQ(match->kind, ResultKind::kShifted);
  EXPECT_GE(match->lease->matched_tokens, 680);
  EXPECT_LE(harness_.WorstError(match->lease, target), 1e-6);
}

// Also where more wait than are prepared.
TEST_P(BrokerTest, PreparedReadsBringTheSameRows) {
  BrokerOptions options = BrokerHarness::DefaultOptions();
  options.limits.max_leases = 12;
  harness_.Restart(options);
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const Ids target = Concat(RandomIds(64, 9), document_);
  std::vector<MatchLeasePtr> leases;
  for (int i = 0; i < options.limits.max_leases; ++i) {
    const auto match = harness_.Match(harness_.Find(target));
    ASSERT_TRUE(match.ok()) << match.status();
    broker().PrepareRead(match->lease);
    leases.push_back(match->lease);
  }
  for (const MatchLeasePtr& lease : leases) EXPECT_LE(harness_.WorstError(lease, target), 1e-6);
}

TEST_P(BrokerTest, PrefixIsExactAndUnrelatedIsAMiss) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const Ids target = Concat(Slice(document_, 0, 650), RandomIds(30, 3));
  const auto match = harness_.Match(harness_.Find(target));
  ASSERT_TRUE(match.ok()) << match.status();
  EXPECT_EQ(match->kind, ResultKind::kExactPrefix);
  EXPECT_EQ(harness_.WorstError(match->lease, target), 0);
  const auto miss = harness_.Match(harness_.Find(RandomIds(600, 99)));
  EXPECT_TRUE(absl::IsNotFound(miss.status())) << miss.status();
}

TEST_P(BrokerTest, RestartFindsEveryDurableReferenceBitForBit) {
  const Ids other = RandomIds(300, 5);
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  ASSERT_TRUE(harness_.Store(harness_.Put(other)).ok());
  harness_.disk.Crash();
  harness_.Restart();
  EXPECT_TRUE(harness_.warnings.empty());
  for (const Ids& ids : {document_, other}) {
    const auto match = harness_.Match(harness_.Find(ids));
    ASSERT_TRUE(match.ok()) << match.status();
    EXPECT_EQ(harness_.WorstError(match->lease, ids), 0);
  }
}

TEST_P(BrokerTest, MemoryReferencesEndWithTheProcess) {
  PutRequest request = harness_.Put(document_);
  request.durable = false;
  const auto put = harness_.Store(request);
  ASSERT_TRUE(put.ok());
  EXPECT_FALSE(put->durable);
  ASSERT_TRUE(harness_.Match(harness_.Find(document_)).ok());
  harness_.Restart();
  EXPECT_FALSE(harness_.Match(harness_.Find(document_)).ok());
}

TEST_P(BrokerTest, EqualPrefixesShareChunks) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const Ids longer = Concat(Slice(document_, 0, 640), RandomIds(100, 6));
  const auto ticket = broker().BeginPut(kTenant, harness_.Put(longer));
  ASSERT_TRUE(ticket.ok());
  ASSERT_EQ(ticket->missing.size(), 1u);
  EXPECT_EQ(ticket->missing[0], (TokenRange{640, 740}));
}

TEST_P(BrokerTest, SamePromptAgainNeedsNothing) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const auto again = broker().BeginPut(kTenant, harness_.Put(document_));
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->upload_id.empty());
  EXPECT_TRUE(again->durable);
  EXPECT_EQ(broker().Stats().references, 1);
}

TEST_P(BrokerTest, DroppedUploadLeavesNothing) {
  const int64_t used = broker().Stats().chunks.device_bytes_used;
  {
    auto upload = harness_.Fill(harness_.Put(document_));
    ASSERT_TRUE(upload.ok());
    EXPECT_GT(broker().Stats().chunks.device_bytes_used, used);
    EXPECT_EQ(broker().Stats().uploads, 1);
  }
  EXPECT_EQ(broker().Stats().chunks.device_bytes_used, used);
  EXPECT_EQ(broker().Stats().uploads, 0);
  EXPECT_FALSE(harness_.Match(harness_.Find(document_)).ok());
}

TEST_P(BrokerTest, UploadThatNobodyFillsTimesOut) {
  const auto ticket = broker().BeginPut(kTenant, harness_.Put(document_));
  ASSERT_TRUE(ticket.ok());
  harness_.now_ms += broker().options().upload_timeout_ms + 1;
  ASSERT_TRUE(broker().Maintain().ok());
  EXPECT_TRUE(absl::IsNotFound(broker().TakeUpload(kTenant, ticket->upload_id).status()));
  EXPECT_EQ(broker().metrics().puts_dropped.load(), 1u);
}

TEST_P(BrokerTest, LeaseLife) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const auto match = harness_.Match(harness_.Find(document_));
  ASSERT_TRUE(match.ok());
  const std::string id = match->lease->id;
  EXPECT_TRUE(broker().OpenLease(kTenant, id).ok());
  EXPECT_TRUE(absl::IsNotFound(broker().OpenLease("somebody else", id).status()));
  EXPECT_TRUE(broker().ReleaseMatch(kTenant, id, {}).ok());
  EXPECT_TRUE(broker().ReleaseMatch(kTenant, id, {}).ok());  // idempotent
  EXPECT_TRUE(absl::IsNotFound(broker().OpenLease(kTenant, id).status()));

  const auto second = harness_.Match(harness_.Find(document_));
  ASSERT_TRUE(second.ok());
  harness_.now_ms += broker().options().lease_timeout_ms + 1;
  EXPECT_TRUE(absl::IsAborted(broker().OpenLease(kTenant, second->lease->id).status()));
  harness_.now_ms += broker().options().lease_memory_ms + 1;
  ASSERT_TRUE(broker().Maintain().ok());
  EXPECT_TRUE(absl::IsNotFound(broker().OpenLease(kTenant, second->lease->id).status()));
}

TEST_P(BrokerTest, OutcomesAreCheckedAndCounted) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const auto match = harness_.Match(harness_.Find(document_));
  ASSERT_TRUE(match.ok());
  const std::string id = match->lease->id;
  MatchOutcome outcome;
  outcome.kind = ResultKind::kFallback;
  const auto release = [&](const MatchOutcome& what) {
    return std::string(broker().ReleaseMatch(kTenant, id, what).message());
  };
  MatchOutcome bad = outcome;
  bad.seconds_saved = NAN;
  EXPECT_THAT(release(bad), HasSubstr("seconds_saved"));
  bad = outcome;
  bad.fallback_reason = std::string(65, 'x');
  EXPECT_THAT(release(bad), HasSubstr("fallback_reason"));
  EXPECT_TRUE(broker().OpenLease(kTenant, id).ok());  // a refused outcome ends nothing

  outcome.seconds_saved = -2;  // a loss counts as no gain
  outcome.fallback_reason = "sigma";
  EXPECT_EQ(release(outcome), "");
  const Metrics& metrics = broker().metrics();
  EXPECT_EQ(metrics.fallbacks_sigma.load(), 1U);
  EXPECT_EQ(metrics.fallbacks_other.load(), 0U);
  EXPECT_EQ(metrics.saved_seconds.sum_seconds(), 0);
  EXPECT_EQ(release(outcome), "");  // idempotent, and not counted again
  EXPECT_EQ(metrics.fallbacks_sigma.load(), 1U);
}

TEST_P(BrokerTest, LeasesAreLimited) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  for (int i = 0; i < broker().options().limits.max_leases; ++i) {
    ASSERT_TRUE(harness_.Match(harness_.Find(document_)).ok());
  }
  const auto result = broker().FindMatch(kTenant, harness_.Find(document_));
  ASSERT_TRUE(result.ok());
  ASSERT_TRUE(std::holds_alternative<NoMatch>(*result));
  EXPECT_EQ(std::get<NoMatch>(*result).reason, NoMatchReason::kBusy);
}

// The arena holds 1,360 chunks of this model; all of them pinned by a lease leave no room.
TEST_P(BrokerTest, FullArenaWithAllChunksPinnedRefusesAndLosesNothing) {
  const int64_t chunk = harness_.engine.info().layout->chunk_bytes();
  const int64_t tokens = TinyEngine::kMaxPositions;
  const int64_t fit = kMaxChunkBytes / chunk;
  std::vector<MatchLeasePtr> leases;
  std::vector<Ids> stored;
  absl::Status status;
  for (int64_t chunks = 0; chunks < fit && status.ok(); chunks += tokens / kChunkTokens) {
    const Ids ids = RandomIds(tokens, 1000 + chunks);
    status = harness_.Store(harness_.Put(ids)).status();
    if (!status.ok()) break;
    auto match = harness_.Match(harness_.Find(ids));
    ASSERT_TRUE(match.ok()) << match.status();
    leases.push_back(match->lease);
    ASSERT_TRUE(broker().ReleaseMatch(kTenant, match->lease->id, {}).ok());  // our copy pins on
    stored.push_back(ids);
  }
  const auto refused = harness_.Store(harness_.Put(RandomIds(tokens, 5)));
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  const auto first = harness_.Match(harness_.Find(stored[0]));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(harness_.WorstError(first->lease, stored[0]), 0);
  // With the pins gone the same put has room, and what it displaced comes back from disk.
  ASSERT_TRUE(broker().ReleaseMatch(kTenant, first->lease->id, {}).ok());
  leases.clear();
  ASSERT_TRUE(harness_.Store(harness_.Put(RandomIds(tokens, 5))).ok());
  ExpectCommittedIntact();
}

TEST_P(BrokerTest, CorruptRecordIsAMissAndAPutHealsIt) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const std::vector<ChunkId> chunks =
      MakeChunkChain(MakeNamespaceId(kTenant, harness_.engine.fingerprint()), document_, {});
  harness_.disk.Corrupt(DiskTable::kChunks, chunks[2].ToBytes(), 5000, 0x10);
  harness_.Restart();
  const auto result = broker().FindMatch(kTenant, harness_.Find(document_));
  ASSERT_TRUE(result.ok());
  ASSERT_TRUE(std::holds_alternative<NoMatch>(*result));
  EXPECT_EQ(std::get<NoMatch>(*result).reason, NoMatchReason::kChunksUnavailable);
  EXPECT_EQ(broker().Stats().chunks.quarantined_chunks, 1);
  const auto described = broker().Describe(kTenant, {"", {}, "", IdPrefix(document_)});
  EXPECT_TRUE(absl::IsDataLoss(described.status())) << described.status();
  EXPECT_THAT(std::string(described.status().message()), HasSubstr(chunks[2].ToHex()));

  const auto ticket = broker().BeginPut(kTenant, harness_.Put(document_));
  ASSERT_TRUE(ticket.ok());
  ASSERT_EQ(ticket->missing.size(), 1u);
  EXPECT_EQ(ticket->missing[0], (TokenRange{128, 192}));
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const auto match = harness_.Match(harness_.Find(document_));
  ASSERT_TRUE(match.ok()) << match.status();
  EXPECT_EQ(harness_.WorstError(match->lease, document_), 0);
  EXPECT_TRUE(broker().Describe(kTenant, {"", {}, "", IdPrefix(document_)}).ok());
  ExpectCommittedIntact();
}

TEST_P(BrokerTest, BadPutsNameTheField) {
  ASSERT_TRUE(harness_.Store(harness_.Put(RandomIds(200, 8))).ok());
  const auto expect = [&](const PutRequest& request, const char* field) {
    const auto ticket = broker().BeginPut(kTenant, request);
    EXPECT_TRUE(absl::IsInvalidArgument(ticket.status())) << ticket.status();
    EXPECT_THAT(std::string(ticket.status().message()), HasSubstr(field));
  };
  PutRequest request = harness_.Put(document_);
  request.token_ids.clear();
  expect(request, "token_ids");
  request.token_ids = {TinyEngine::kVocab};
  expect(request, "token_ids");
  request.token_ids.assign(TinyEngine::kMaxPositions + 1, 1);
  expect(request, "token_ids");
  request = harness_.Put(document_);
  request.importance = {1.0f};
  expect(request, "importance");
  request.importance.assign(document_.size(), 1.0f);
  request.importance[3] = -1.0f;
  expect(request, "importance");
  request = harness_.Put(document_);
  request.tags = {{5, 5, "x"}};
  expect(request, "content_tags");
  request.tags = {{0, 9, "x"}, {8, 12, "y"}};
  expect(request, "content_tags");
  request = harness_.Put(document_);
  request.priority = 256;
  expect(request, "priority");
  request = harness_.Put(document_);
  request.alias = std::string(257, 'a');
  expect(request, "alias");
  request.alias.pop_back();
  EXPECT_TRUE(broker().BeginPut(kTenant, request).ok());
  request = harness_.Put(document_);
  request.model = std::string(32, 'x');
  EXPECT_TRUE(absl::IsNotFound(broker().BeginPut(kTenant, request).status()));
  ExpectCommittedIntact();
}

TEST_P(BrokerTest, BadFindsNameTheField) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const auto expect = [&](const FindRequest& request, const char* field) {
    const auto result = broker().FindMatch(kTenant, request);
    EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(field));
  };
  FindRequest request = harness_.Find(document_);
  request.token_ids[7] = TinyEngine::kVocab;
  expect(request, "token_ids");
  request.token_ids[7] = TinyEngine::kVocab - 1;
  EXPECT_TRUE(broker().FindMatch(kTenant, request).ok());
  request = harness_.Find(document_);
  request.model = std::string(32, 'x');
  EXPECT_TRUE(absl::IsNotFound(broker().FindMatch(kTenant, request).status()));
  request.model = "short";
  expect(request, "model");
  request = harness_.Find(document_);
  request.kl_target = -1;
  expect(request, "kl_target");
  request = harness_.Find(document_);
  request.max_references = broker().options().limits.max_references_per_match + 1;
  expect(request, "max_references");
  request = harness_.Find(document_);
  request.minimum_gain = 2;
  expect(request, "minimum_gain");
  request.cost.prefill = {{100, 0.001}};
  for (const double speed : {-1.0, std::nan(""), HUGE_VAL}) {
    request.cost.transfer_bytes_per_second = speed;
    expect(request, "worker_cost.transfer_bytes_per_second");
  }
  request.cost.transfer_bytes_per_second = 0;
  request.cost.prefill.clear();
  for (int i = 1; i <= broker().options().limits.max_prefill_points; ++i) {
    request.cost.prefill.push_back({i * 10, i * 0.1});
  }
  EXPECT_TRUE(broker().FindMatch(kTenant, request).ok());
  request.cost.prefill.push_back({100000, 100.0});
  expect(request, "worker_cost.prefill");
  request.cost.prefill = {{100, 0.1}, {100, 0.2}};
  expect(request, "worker_cost.prefill");
  ExpectCommittedIntact();
}

TEST_P(BrokerTest, AliasesAreUnique) {
  PutRequest request = harness_.Put(document_);
  request.alias = "manual";
  ASSERT_TRUE(harness_.Store(request).ok());
  PutRequest other = harness_.Put(RandomIds(200, 8));
  other.alias = "manual";
  EXPECT_TRUE(absl::IsAlreadyExists(broker().BeginPut(kTenant, other).status()));
  EXPECT_TRUE(broker().BeginPut(kTenant, request).ok());
}

TEST_P(BrokerTest, ModelsWithOtherWeightsNeverMeet) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const TinyEngine other(8);
  ASSERT_TRUE(harness_.RegisterModel(other).ok());
  FindRequest find = harness_.Find(document_);
  find.model = other.fingerprint();
  EXPECT_FALSE(harness_.Match(find).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(harness_.RegisterModel(TinyEngine(9))));
  EXPECT_FALSE(*broker().HasModel("somebody else", other.fingerprint()));
  ExpectCommittedIntact();
}

TEST_P(BrokerTest, LyingDescriptorIsRefused) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const TinyEngine liar(11);
  const auto refused = broker().RegisterModel(kTenant, liar.LyingRegistration());
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("plane k"));
  EXPECT_FALSE(*broker().HasModel(kTenant, liar.fingerprint()));
  EXPECT_EQ(broker().metrics().probe_failures.load(), 1u);
  ExpectCommittedIntact();
}

TEST_P(BrokerTest, AnotherEngineWithOtherNumericsIsRefused) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  ModelRegistration registration = TinyEngine(12).Registration();
  registration.info = harness_.engine.info();  // claims to be the same model
  registration.table.clear();
  const auto refused = broker().RegisterModel(kTenant, registration);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  ModelRegistration again = harness_.engine.Registration();
  again.table.clear();
  const auto known = broker().RegisterModel(kTenant, again);
  ASSERT_TRUE(known.ok()) << known.status();
  EXPECT_FALSE(known->created);
  ExpectCommittedIntact();
}

TEST_P(BrokerTest, TimeToLivePinDeleteTrim) {
  PutRequest request = harness_.Put(document_);
  request.ttl_ms = 1000;
  request.alias = "short";
  ASSERT_TRUE(harness_.Store(request).ok());
  ASSERT_TRUE(broker().SetPinned(kTenant, {"", {}, "short", ""}, true).ok());
  harness_.now_ms += 2000;
  ASSERT_TRUE(broker().Maintain().ok());
  EXPECT_EQ(broker().Stats().references, 1);
  ASSERT_TRUE(broker().SetPinned(kTenant, {"", {}, "short", ""}, false).ok());
  ASSERT_TRUE(broker().Maintain().ok());
  EXPECT_EQ(broker().Stats().references, 0);
  ASSERT_TRUE(broker().Maintain().ok());
  EXPECT_EQ(broker().Stats().chunks.chunks, 0);
  EXPECT_EQ(harness_.disk.size(DiskTable::kChunks), 0);

  const auto put = harness_.Store(harness_.Put(document_));
  ASSERT_TRUE(put.ok());
  const std::string hex = put->reference.ToHex();
  EXPECT_TRUE(broker().Describe(kTenant, {"", {}, "", hex.substr(0, 6)}).ok());
  EXPECT_TRUE(
      absl::IsInvalidArgument(broker().Describe(kTenant, {"", {}, "", hex.substr(0, 3)}).status()));
  harness_.now_ms += 10;
  EXPECT_EQ(*broker().TrimByTime(kTenant, harness_.now_ms - 10), 0);
  EXPECT_EQ(*broker().TrimByTime(kTenant, harness_.now_ms), 1);
  EXPECT_TRUE(absl::IsNotFound(broker().Delete(kTenant, {"", put->reference, "", ""})));
}

TEST_P(BrokerTest, DeletedReferenceServesTheLeaseThatHoldsIt) {
  const auto put = harness_.Store(harness_.Put(document_));
  ASSERT_TRUE(put.ok());
  const auto match = harness_.Match(harness_.Find(document_));
  ASSERT_TRUE(match.ok());
  ASSERT_TRUE(broker().Delete(kTenant, {"", put->reference, "", ""}).ok());
  ASSERT_TRUE(broker().Maintain().ok());
  EXPECT_EQ(harness_.WorstError(match->lease, document_), 0);
  EXPECT_FALSE(harness_.Match(harness_.Find(document_)).ok());
}

TEST_P(BrokerTest, DrainRefusesNewWork) {
  broker().Drain();
  EXPECT_TRUE(absl::IsUnavailable(broker().BeginPut(kTenant, harness_.Put(document_)).status()));
  EXPECT_TRUE(absl::IsUnavailable(broker().FindMatch(kTenant, harness_.Find(document_)).status()));
}

TEST_P(BrokerTest, CostGateMakesAMiss) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  FindRequest find = harness_.Find(document_);
  find.cost.prefill = {{100, 0.001}, {1000, 0.01}};
  find.cost.transfer_bytes_per_second = 1;  // a very slow wire
  const auto result = broker().FindMatch(kTenant, find);
  ASSERT_TRUE(result.ok());
  ASSERT_TRUE(std::holds_alternative<NoMatch>(*result));
  EXPECT_EQ(std::get<NoMatch>(*result).reason, NoMatchReason::kCost);
  find.cost.transfer_bytes_per_second = 1e12;
  EXPECT_TRUE(harness_.Match(find).ok());
}

// Two prompts that share a passage of a fifth: found, but not worth its price.
TEST_P(BrokerTest, LittleInCommonIsAMiss) {
  ASSERT_TRUE(harness_.Store(harness_.Put(document_)).ok());
  const Ids target = Concat(RandomIds(480, 40), Slice(document_, 100, 220));
  const auto result = broker().FindMatch(kTenant, harness_.Find(target));
  ASSERT_TRUE(result.ok());
  ASSERT_TRUE(std::holds_alternative<NoMatch>(*result));
  EXPECT_EQ(std::get<NoMatch>(*result).reason, NoMatchReason::kLowCoverage);
}

TEST(BrokerMemoryTest, SteadyStateAllocatesNothingFromTheBackend) {
  LateBackend* late = nullptr;
  BrokerHarness harness({"Late", [&late]() -> absl::StatusOr<std::unique_ptr<Backend>> {
                           auto backend = NewLateBackend({.lanes = 8});
                           late = backend.get();
                           return std::unique_ptr<Backend>(std::move(backend));
                         }});
  ASSERT_TRUE(harness.RegisterModel().ok());
  ASSERT_TRUE(harness.Store(harness.Put(RandomIds(300, 1))).ok());
  const int64_t allocations = late->allocations();
  for (int i = 2; i < 6; ++i) {
    const Ids ids = RandomIds(300, i);
    ASSERT_TRUE(harness.Store(harness.Put(ids)).ok());
    const auto match = harness.Match(harness.Find(ids));
    ASSERT_TRUE(match.ok());
    EXPECT_EQ(harness.WorstError(match->lease, ids), 0);
    ASSERT_TRUE(harness.broker->ReleaseMatch(kTenant, match->lease->id, {}).ok());
  }
  EXPECT_EQ(late->allocations(), allocations);
}

}  // namespace
}  // namespace semshare::testing
