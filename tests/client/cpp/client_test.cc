#include "client/cpp/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "tests/client/cpp/samples.h"
#include "tests/client/cpp/scripted_broker.h"

namespace semshare::client {
namespace {

using testing::Fingerprint;
using ::testing::HasSubstr;
using testing::Id;
using testing::SampleMatch;
using testing::SampleTarget;
using testing::ScriptedBroker;

std::unique_ptr<Client> Connect(const std::string& address, ClientDeadlines deadlines = {}) {
  absl::StatusOr<std::unique_ptr<Client>> client = Client::Create({address, deadlines});
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

// A listening socket; nobody ever accepts, so that connections are made and stay silent.
class SilentPort {
 public:
  SilentPort() : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(listen(socket_, 8), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~SilentPort() { Close(); }

  void Close() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
  }
  const std::string& address() const { return address_; }

 private:
  int socket_;
  std::string address_;
};

TEST(ClientTest, OptionsAreChecked) {
  EXPECT_TRUE(absl::IsInvalidArgument(Client::Create({""}).status()));
  ClientOptions options;
  EXPECT_TRUE(Client::Create(options).ok());
  for (int64_t ClientDeadlines::*member :
       {&ClientDeadlines::control_ms, &ClientDeadlines::find_ms, &ClientDeadlines::transfer_ms,
        &ClientDeadlines::release_ms}) {
    options.deadlines = {};
    options.deadlines.*member = 0;
    EXPECT_TRUE(absl::IsInvalidArgument(Client::Create(options).status()));
  }
}

TEST(ClientTest, EveryUnaryCallReachesItsMethod) {
  ScriptedBroker broker;
  broker.script().info.set_version("1.2.3");
  broker.script().model_known = true;
  broker.script().models.add_models()->set_name("tiny");
  broker.script().pages.resize(1);
  broker.script().pages[0].add_references()->set_tokens(77);
  broker.script().describe.set_chunks(5);
  broker.script().stats.set_leases(9);
  auto client = Connect(broker.address());
  EXPECT_EQ(client->ServerInfo()->version(), "1.2.3");
  EXPECT_TRUE(*client->GetModel(Fingerprint('m')));
  EXPECT_EQ(client->ListModels()->models(0).name(), "tiny");
  EXPECT_EQ(client->List({})->references(0).tokens(), 77u);
  EXPECT_EQ(client->Stats()->leases(), 9u);
  v1::ReferenceName name;
  name.set_alias("doc");
  EXPECT_EQ(client->Describe(name)->chunks(), 5u);
  EXPECT_TRUE(client->Delete(name).ok());
  EXPECT_TRUE(client->Pin(name, true).ok());
  EXPECT_EQ(client->TrimByTime(1234)->references(), 2u);
  EXPECT_EQ(client->DeleteTenant()->references(), 3u);
  EXPECT_TRUE(client->Drain().ok());
  const testing::BrokerRecord record = broker.record();
  EXPECT_EQ(record.names.size(), 3u);
  EXPECT_TRUE(record.pins.at(0).pinned());
  EXPECT_EQ(record.trims.at(0).used_before_unix_ms(), 1234);
  EXPECT_EQ(record.deleted_tenants, 1);
  EXPECT_EQ(record.drains, 1);
}

TEST(ClientTest, ErrorsKeepTheirCodeAndSayWhatWasAttempted) {
  ScriptedBroker broker;
  broker.script().find = absl::ResourceExhaustedError("no lane");
  broker.script().knows = [](const auto&) { return absl::NotFoundError("no such reference"); };
  auto client = Connect(broker.address());
  const absl::Status find = client->FindMatch(SampleTarget()).status();
  EXPECT_EQ(find.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(find.message(), "FindMatch: no lane");
  EXPECT_TRUE(absl::IsNotFound(client->Delete({})));
}

TEST(ClientTest, ADeadBrokerIsUnavailableAtOnce) {
  SilentPort port;
  port.Close();
  auto client = Connect(port.address());
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(absl::IsUnavailable(client->FindMatch(SampleTarget()).status()));
  EXPECT_TRUE(absl::IsUnavailable(client->Stats().status()));
  EXPECT_TRUE(absl::IsUnavailable(client->RegisterModel({}, {}).status()));
  EXPECT_TRUE(absl::IsUnavailable(client->Health("").status()));
  // Far below the deadlines of 5 and more seconds.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
}

TEST(ClientTest, ASilentBrokerCostsTheDeadline) {
  SilentPort port;
  auto client = Connect(port.address(), {.control_ms = 100, .find_ms = 100, .transfer_ms = 100});
  EXPECT_TRUE(absl::IsDeadlineExceeded(client->FindMatch(SampleTarget()).status()));
  const absl::Status second = client->ServerInfo().status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(second)) << second;
  EXPECT_TRUE(absl::IsDeadlineExceeded(client->RegisterModel({}, {}).status()));
}

TEST(ClientTest, HealthTellsTheState) {
  ScriptedBroker broker;
  auto client = Connect(broker.address());
  EXPECT_EQ(*client->Health(""), HealthState::kServing);
  broker.SetServing(false);
  EXPECT_EQ(*client->Health(""), HealthState::kNotServing);
  EXPECT_TRUE(absl::IsNotFound(client->Health("no.such.Service").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client->Health(std::string(128, 's')).status()));
}

TEST(ClientTest, AMissIsAnAnswer) {
  ScriptedBroker broker;
  v1::FindMatchResponse miss;
  miss.mutable_no_match()->set_reason(v1::NO_MATCH_REASON_LOW_COVERAGE);
  broker.script().find = miss;
  auto client = Connect(broker.address());
  absl::StatusOr<FindResult> found = client->FindMatch(SampleTarget());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_FALSE(found->lease.held());
  EXPECT_EQ(found->no_match.reason(), v1::NO_MATCH_REASON_LOW_COVERAGE);
  EXPECT_TRUE(absl::IsFailedPrecondition(found->lease.Release({})));
  EXPECT_TRUE(broker.record().releases.empty());
}

TEST(ClientTest, ShadowChecksAreReported) {
  ScriptedBroker broker;
  v1::ReportShadowCheckRequest check;
  check.set_model(Fingerprint('m'));
  check.set_kind(v1::RESULT_KIND_SHIFTED);
  check.set_kl_first(0.25);
  auto client = Connect(broker.address());
  const auto answer = client->ReportShadowCheck(check);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(answer->disabled());
  ASSERT_EQ(broker.record().shadow_checks.size(), 1u);
  EXPECT_EQ(broker.record().shadow_checks[0].kl_first(), 0.25);
}

TEST(ClientTest, AnAnswerThatIsNeitherIsRefused) {
  ScriptedBroker broker;
  broker.script().find = v1::FindMatchResponse();
  EXPECT_TRUE(absl::IsInternal(Connect(broker.address())->FindMatch(SampleTarget()).status()));
}

TEST(ClientTest, AWrongMatchIsRefusedAndGivenBack) {
  ScriptedBroker broker;
  v1::FindMatchResponse wrong = SampleMatch();
  wrong.mutable_match()->mutable_segments(1)->set_target_begin(15);
  broker.script().find = wrong;
  EXPECT_TRUE(absl::IsInternal(Connect(broker.address())->FindMatch(SampleTarget()).status()));
  EXPECT_EQ(broker.record().releases.size(), 1u);
}

TEST(LeaseTest, DestructionReleasesExactlyOnce) {
  ScriptedBroker broker;
  broker.script().find = SampleMatch();
  auto client = Connect(broker.address());
  {
    absl::StatusOr<FindResult> found = client->FindMatch(SampleTarget());
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->lease.match().matched_tokens(), 10u);
    Lease moved = std::move(found->lease);
    EXPECT_FALSE(found->lease.held());
    Lease assigned;
    assigned = std::move(moved);
    EXPECT_TRUE(assigned.held());
    EXPECT_TRUE(broker.record().releases.empty());
  }
  const testing::BrokerRecord record = broker.record();
  ASSERT_EQ(record.releases.size(), 1u);
  EXPECT_EQ(record.releases[0].lease_id(), Id('L'));
}

TEST(LeaseTest, ReleaseCarriesTheOutcomeAndIsTheOnlyOne) {
  ScriptedBroker broker;
  broker.script().find = SampleMatch();
  auto client = Connect(broker.address());
  {
    absl::StatusOr<FindResult> found = client->FindMatch(SampleTarget());
    ASSERT_TRUE(found.ok());
    v1::MatchOutcome outcome;
    outcome.set_kind(v1::RESULT_KIND_FALLBACK);
    outcome.set_fallback_reason("sigma");
    EXPECT_TRUE(found->lease.Release(outcome).ok());
    EXPECT_FALSE(found->lease.held());
    EXPECT_TRUE(absl::IsFailedPrecondition(found->lease.Release(outcome)));
  }
  const testing::BrokerRecord record = broker.record();
  ASSERT_EQ(record.releases.size(), 1u);
  EXPECT_EQ(record.releases[0].outcome().fallback_reason(), "sigma");
}

TEST(LeaseTest, AFailedReleaseIsToldAndNotRepeated) {
  ScriptedBroker broker;
  broker.script().find = SampleMatch();
  broker.script().release_status = absl::AbortedError("expired");
  auto client = Connect(broker.address());
  {
    absl::StatusOr<FindResult> found = client->FindMatch(SampleTarget());
    ASSERT_TRUE(found.ok());
    EXPECT_TRUE(absl::IsAborted(found->lease.Release({})));
  }
  EXPECT_EQ(broker.record().releases.size(), 1u);
}

TEST(LeaseTest, AssigningOverALeaseReleasesIt) {
  ScriptedBroker broker;
  broker.script().find = SampleMatch();
  auto client = Connect(broker.address());
  Lease lease = std::move(client->FindMatch(SampleTarget())->lease);
  lease = Lease();
  EXPECT_FALSE(lease.held());
  EXPECT_EQ(broker.record().releases.size(), 1u);
}

TEST(LeaseTest, OutlivesItsClientAndSurvivesItsBroker) {
  ScriptedBroker broker;
  broker.script().find = SampleMatch();
  auto client = Connect(broker.address());
  Lease first = std::move(client->FindMatch(SampleTarget())->lease);
  Lease second = std::move(client->FindMatch(SampleTarget())->lease);
  client.reset();
  EXPECT_TRUE(first.Release({}).ok());
  broker.Stop();
  const auto start = std::chrono::steady_clock::now();
  second = Lease();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
}

TEST(ClientTest, ManyThreadsShareOneClient) {
  ScriptedBroker broker;
  broker.script().find = SampleMatch();
  auto client = Connect(broker.address());
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 20; ++j) {
        absl::StatusOr<FindResult> found = client->FindMatch(SampleTarget());
        EXPECT_TRUE(found.ok() && found->lease.held());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(broker.record().releases.size(), 160u);
}

}  // namespace
}  // namespace semshare::client
