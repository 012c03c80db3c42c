#include "client/cpp/ctl/run.h"

#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/client/cpp/samples.h"
#include "tests/client/cpp/scripted_broker.h"

namespace semshare::client::ctl {
namespace {

using testing::Fingerprint;
using ::testing::HasSubstr;
using testing::Id;
using ::testing::Not;

constexpr int64_t kNowMs = 1'700'000'000'000;

class RunTest : public ::testing::Test {
 protected:
  RunTest() {
    std::string name = ::testing::TempDir() + "/ctl_run_XXXXXX";
    folder_ = mkdtemp(name.data());
    broker_.script().info.set_unix_time_ms(kNowMs);
    AddModel("tiny", 'm');
  }
  ~RunTest() override { std::filesystem::remove_all(folder_); }

  void AddModel(const std::string& name, char fingerprint) {
    v1::ListModelsResponse::Model* model = broker_.script().models.add_models();
    model->set_name(name);
    model->set_fingerprint(Fingerprint(fingerprint));
    model->set_layers(2);
    model->set_dtype(v1::DTYPE_FLOAT16);
    model->set_kv_bytes_per_token(32);
    model->set_references(1234);
  }

  // Runs a command against the broker; what it printed is in out_ and err_.
  int Ctl(std::vector<std::string> words) {
    words.insert(words.begin(), "--address=" + broker_.address());
    return Plain(words);
  }

  int Plain(const std::vector<std::string>& words) {
    std::ostringstream out;
    std::ostringstream err;
    const int code = ctl::Run(words, out, err);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  std::string Path(const std::string& name) { return folder_ + "/" + name; }

  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(Path(name), std::ios::binary) << text;
    return Path(name);
  }

  // The 16 ids of the sample match's target.
  std::string TargetIds() { return Write("ids", "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"); }

  google::protobuf::Struct Json() {
    google::protobuf::Struct json;
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(out_, &json).ok()) << out_;
    return json;
  }

  testing::ScriptedBroker broker_;
  std::string folder_;
  std::string out_;
  std::string err_;
};

v1::ReferenceInfo Info(char id, const std::string& alias) {
  v1::ReferenceInfo info;
  info.set_model(Fingerprint('m'));
  info.set_reference_id(Id(id));
  info.set_alias(alias);
  info.set_tokens(3500);
  info.set_visible(true);
  info.set_durable(alias.empty());
  info.set_pinned(!alias.empty());
  info.set_priority(7);
  info.set_created_unix_ms(kNowMs - 7'500'000);
  info.set_used_unix_ms(kNowMs - 12'000);
  info.set_expires_unix_ms(alias.empty() ? 0 : kNowMs + 60'000);
  return info;
}

TEST_F(RunTest, UsageErrorsExitWith2AndHelpWith0) {
  EXPECT_EQ(Plain({}), 2);
  EXPECT_THAT(err_, HasSubstr("no command"));
  EXPECT_EQ(Plain({"wrong"}), 2);
  EXPECT_EQ(Plain({"describe"}), 2);
  EXPECT_EQ(Ctl({"trim"}), 2);
  EXPECT_EQ(Ctl({"trim", "--before=soon"}), 2);
  EXPECT_EQ(Ctl({"list", "--limit=many"}), 2);
  EXPECT_EQ(Ctl({"stats", "--timeout=0s"}), 2);
  EXPECT_EQ(Ctl({"stats", "--address_file=x"}), 2);
  EXPECT_EQ(Ctl({"put", "--ids=x"}), 2);
  EXPECT_EQ(Ctl({"find"}), 2);
  EXPECT_EQ(Ctl({"find", "--ids=x", "--mode=odd"}), 2);
  EXPECT_EQ(Ctl({"find", "--ids=x", "--preset=odd"}), 2);
  EXPECT_EQ(Ctl({"find", "--ids=x", "--kl_target=-1"}), 2);
  EXPECT_EQ(Ctl({"put", "--ids=x", "--kv=x", "--priority=256"}), 2);
  EXPECT_EQ(Ctl({"put", "--ids=x", "--kv=x", "--durability=maybe"}), 2);
  EXPECT_EQ(Ctl({"shadow", "--kind=odd"}), 2);
  EXPECT_EQ(Ctl({"shadow", "--kind=unspecified", "--reset"}), 2);
  EXPECT_EQ(Ctl({"shadow", "--kind=miss", "--reset"}), 2);
  EXPECT_TRUE(out_.empty());
  EXPECT_EQ(Plain({"--help"}), 0);
  for (const char* name : {"models", "put", "find", "read", "list", "describe", "delete", "pin",
                           "unpin", "stats", "shadow", "health", "info", "trim", "drain"}) {
    EXPECT_THAT(out_, HasSubstr(std::string("\n  ") + name));
  }
  EXPECT_EQ(Plain({"put", "--help"}), 0);
  EXPECT_THAT(out_, HasSubstr("--plane_bytes"));
}

TEST_F(RunTest, ErrorsNameCodeAndMessage) {
  broker_.script().knows = [](const auto&) { return absl::NotFoundError("no reference 'doc'"); };
  EXPECT_EQ(Ctl({"delete", "doc"}), 1);
  EXPECT_EQ(err_, "semsharectl: NOT_FOUND: Delete: no reference 'doc'\n");
  EXPECT_TRUE(out_.empty());
  broker_.Stop();
  EXPECT_EQ(Ctl({"stats"}), 1);
  EXPECT_THAT(err_, HasSubstr("semsharectl: UNAVAILABLE: Stats: "));
}

TEST_F(RunTest, TheAddressComesFromTheBrokersFile) {
  const std::string file =
      Write("address", "{\"grpc\": \"" + broker_.address() + "\", \"metrics\": \"x\"}");
  EXPECT_EQ(Plain({"stats", "--address_file", file}), 0) << err_;
  EXPECT_EQ(Plain({"stats", "--address_file=" + Write("wrong", "{}")}), 1);
  EXPECT_EQ(Plain({"stats", "--address_file=" + Write("wrong", "no json")}), 1);
  EXPECT_EQ(Plain({"stats", "--address_file=" + Path("absent")}), 1);
}

TEST_F(RunTest, ModelsAsATable) {
  AddModel("second", 'n');
  ASSERT_EQ(Ctl({"models"}), 0) << err_;
  EXPECT_EQ(out_,
            "NAME    FINGERPRINT   LAYERS  DTYPE    KV/TOKEN  REFERENCES\n"
            "tiny    6d6d6d6d6d6d       2  float16      32 B       1,234\n"
            "second  6e6e6e6e6e6e       2  float16      32 B       1,234\n");
  ASSERT_EQ(Ctl({"models", "--json"}), 0);
  EXPECT_EQ(Json().fields().at("models").list_value().values_size(), 2);
}

TEST_F(RunTest, ListFollowsThePages) {
  auto& pages = broker_.script().pages;
  pages.resize(2);
  *pages[0].add_references() = Info('a', "");
  pages[0].set_next_page_token("1");
  *pages[1].add_references() = Info('b', "doc");
  ASSERT_EQ(Ctl({"list"}), 0) << err_;
  EXPECT_EQ(out_,
            "ID            ALIAS  MODEL         TOKENS  STATE    PINNED  PRIORITY  CREATED        "
            "USED      EXPIRES\n"
            "616161616161  -      6d6d6d6d6d6d   3,500  durable  no             7  2 h 5 min ago  "
            "12 s ago  -\n"
            "626262626262  doc    6d6d6d6d6d6d   3,500  memory   yes            7  2 h 5 min ago  "
            "12 s ago  in 1 min\n");
  ASSERT_EQ(Ctl({"list", "--json", "--limit=1"}), 0);
  EXPECT_EQ(Json().fields().at("references").list_value().values_size(), 1);
  pages[1].set_next_page_token("1");
  EXPECT_EQ(Ctl({"list"}), 1) << "a broker that repeats a page must not hang the client";
}

TEST_F(RunTest, DescribeTellsEverything) {
  *broker_.script().describe.mutable_info() = Info('a', "doc");
  broker_.script().describe.set_chunks(55);
  broker_.script().describe.set_shared_chunks(4);
  broker_.script().describe.set_device_bytes(3 << 20);
  broker_.script().describe.set_disk_bytes(1 << 20);
  ASSERT_EQ(Ctl({"describe", "doc"}), 0) << err_;
  EXPECT_EQ(out_,
            "id                 61616161616161616161616161616161\n"
            "alias              doc\n"
            "model              " +
                std::string("6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d") +
                "6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d\n"
                "tokens             3,500\n"
                "state              memory\n"
                "pinned             yes\n"
                "priority           7\n"
                "importance stored  no\n"
                "chunks             55, shared with others: 4\n"
                "in memory          3.0 MiB\n"
                "on disk            1.0 MiB\n"
                "created            2 h 5 min ago\n"
                "used               12 s ago\n"
                "expires            in 1 min\n");
}

TEST_F(RunTest, ReferencesAreReadInEveryWay) {
  // Only a name by prefix is known.
  broker_.script().knows = [](const v1::ReferenceName& name) -> absl::Status {
    return name.id_prefix() == "abcd" ? absl::OkStatus() : absl::NotFoundError("unknown");
  };
  ASSERT_EQ(Ctl({"pin", "ABCD"}), 0) << err_;
  EXPECT_EQ(out_, "pinned ABCD\n");
  EXPECT_EQ(Ctl({"unpin", "abc"}), 1) << "too short for a prefix";
  testing::BrokerRecord record = broker_.record();
  ASSERT_EQ(record.pins.size(), 3u);
  EXPECT_EQ(record.pins[0].reference().alias(), "ABCD");
  EXPECT_EQ(record.pins[1].reference().id_prefix(), "abcd");
  EXPECT_TRUE(record.pins[1].pinned());
  EXPECT_EQ(record.pins[2].reference().alias(), "abc");
  EXPECT_FALSE(record.pins[2].pinned());
  // Full ids, in hexadecimal and as JSON prints them.
  broker_.script().knows = [](const v1::ReferenceName& name) -> absl::Status {
    return name.reference_id() == Id('a') ? absl::OkStatus() : absl::NotFoundError("unknown");
  };
  EXPECT_EQ(Ctl({"delete", "61616161616161616161616161616161"}), 0);
  EXPECT_EQ(Ctl({"delete", "YWFhYWFhYWFhYWFhYWFhYQ=="}), 0);
  EXPECT_EQ(Ctl({"delete", ""}), 2);
}

TEST_F(RunTest, AModelIsNamedByAPrefix) {
  EXPECT_EQ(Ctl({"delete", "doc"}), 0);
  EXPECT_EQ(Ctl({"delete", "doc", "--model=6D6d"}), 0) << err_;
  EXPECT_EQ(Ctl({"delete", "doc", "--model=77"}), 1);
  EXPECT_EQ(err_,
            "semsharectl: NOT_FOUND: --model: no model '77'; registered: 6d6d6d6d6d6d (tiny)\n");
  AddModel("second", 'n');
  EXPECT_EQ(Ctl({"delete", "doc", "--model=6"}), 1);
  EXPECT_THAT(err_, HasSubstr("fits several models"));
  const testing::BrokerRecord record = broker_.record();
  ASSERT_EQ(record.names.size(), 2u);
  EXPECT_EQ(record.names[0].model(), "");
  EXPECT_EQ(record.names[1].model(), Fingerprint('m'));
}

TEST_F(RunTest, StatsAreReadable) {
  v1::StatsResponse& stats = broker_.script().stats;
  stats.set_references(12);
  stats.set_chunks(660);
  stats.set_chunks_resident(600);
  stats.set_device_bytes_used(3 << 20);
  stats.set_device_bytes_total(4 << 20);
  stats.set_tokens_requested(10000);
  stats.set_tokens_matched(9000);
  for (const int count : {0, 3, 0, 2, 0, 0, 1, 0}) stats.add_results(count);
  ASSERT_EQ(Ctl({"stats"}), 0) << err_;
  EXPECT_EQ(out_,
            "models              0\n"
            "references          12\n"
            "chunks              660, in memory: 600\n"
            "memory              3.0 MiB of 4.0 MiB (75.0%)\n"
            "disk                0 B\n"
            "leases              0\n"
            "uploads             0\n"
            "tokens matched      9,000 of 10,000 (90.0%)\n"
            "results             exact_prefix 3, edited 2, miss 1\n"
            "quarantined chunks  0\n"
            "draining            no\n");
  ASSERT_EQ(Ctl({"stats", "--json"}), 0);
  EXPECT_EQ(Json().fields().at("tokens_matched").string_value(), "9000");
  EXPECT_FALSE(Json().fields().at("draining").bool_value());
}

TEST_F(RunTest, ShadowChecksAreShownAndForgotten) {
  AddModel("second", 'n');
  const auto add = [&](char model, v1::ResultKind kind) {
    v1::ShadowStatsResponse::Entry* entry = broker_.script().shadow.add_entries();
    entry->set_model(Fingerprint(model));
    entry->set_kind(static_cast<uint32_t>(kind));
    entry->set_checks(1200);
    return entry;
  };
  v1::ShadowStatsResponse::Entry* bad = add('m', v1::RESULT_KIND_EDITED);
  bad->set_window(64);
  bad->set_mean_kl(0.0625);
  bad->set_largest_kl(0.5);
  bad->set_agreement(0.75);
  bad->set_disabled(true);
  bad->set_disabled_until_unix_ms(kNowMs + 90'000);
  add('n', v1::RESULT_KIND_SHIFTED);
  ASSERT_EQ(Ctl({"shadow"}), 0) << err_;
  EXPECT_EQ(out_,
            "MODEL         KIND     CHECKS  LATEST  MEAN KL  LARGEST KL  SAME TOKEN  STATE\n"
            "6d6d6d6d6d6d  edited    1,200      64  0.06250     0.50000       75.0%  "
            "off, back in 1 min 30 s\n"
            "6e6e6e6e6e6e  shifted   1,200       0        -           -           -  on\n");
  ASSERT_EQ(Ctl({"shadow", "--json", "--kind=edited"}), 0) << err_;
  const google::protobuf::ListValue entries = Json().fields().at("entries").list_value();
  ASSERT_EQ(entries.values_size(), 1);
  EXPECT_EQ(entries.values(0).struct_value().fields().at("mean_kl").number_value(), 0.0625);
  ASSERT_EQ(Ctl({"shadow", "--model=6e"}), 0) << err_;
  EXPECT_THAT(out_, Not(HasSubstr("edited")));
  ASSERT_EQ(Ctl({"shadow", "--reset"}), 0) << err_;
  EXPECT_EQ(out_, "forgot the checks of 2 kind(s) of match\n");
  ASSERT_EQ(Ctl({"shadow", "--reset", "--kind=Exact_Prefix", "--model=6e"}), 0) << err_;
  const testing::BrokerRecord record = broker_.record();
  ASSERT_EQ(record.shadow_resets.size(), 2u);
  EXPECT_EQ(record.shadow_resets[0].kind(), 0u);
  EXPECT_EQ(record.shadow_resets[0].model(), "");
  EXPECT_EQ(record.shadow_resets[1].kind(), 1u);
  EXPECT_EQ(record.shadow_resets[1].model(), Fingerprint('n'));
}

TEST_F(RunTest, HealthIsAnExitCode) {
  EXPECT_EQ(Ctl({"health"}), 0);
  EXPECT_EQ(out_, "SERVING\n");
  EXPECT_EQ(Ctl({"health", "--json"}), 0);
  EXPECT_EQ(Json().fields().at("status").string_value(), "SERVING");
  broker_.SetServing(false);
  EXPECT_EQ(Ctl({"health"}), 1);
  EXPECT_EQ(out_, "NOT_SERVING\n");
  EXPECT_EQ(Ctl({"health", "--service=no.such"}), 1);
}

TEST_F(RunTest, InfoTrimAndDrain) {
  v1::GetServerInfoResponse& info = broker_.script().info;
  info.set_version("0.1.0");
  info.set_backend("cpu");
  info.set_device("AVX2");
  info.add_modes(v1::MATCH_MODE_EXACT_PREFIX);
  info.add_modes(v1::MATCH_MODE_TOKEN);
  ASSERT_EQ(Ctl({"info"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("backend       cpu (AVX2)\n"));
  EXPECT_THAT(out_, HasSubstr("match modes   exact_prefix, token\n"));
  ASSERT_EQ(Ctl({"trim", "--before=2d"}), 0);
  EXPECT_EQ(out_, "removed 2 reference(s) not used for 2 d\n");
  ASSERT_EQ(Ctl({"drain"}), 0);
  const testing::BrokerRecord record = broker_.record();
  EXPECT_EQ(record.trims.at(0).used_before_unix_ms(), kNowMs - 172'800'000);
  EXPECT_EQ(record.drains, 1);
}

TEST_F(RunTest, PutSendsTheFile) {
  // 2 layers, 2 planes of 8 bytes, 3 tokens; the broker lacks the last one.
  std::string kv;
  for (uint32_t layer : {0u, 1u}) {
    for (uint32_t plane : {0u, 1u}) kv += testing::RowBytes({layer, plane, 0, 3}, 8);
  }
  const std::string ids = Write("ids", "[5, 6, 7]");
  const std::string file = Write("kv", kv);
  v1::BeginPutResponse upload;
  upload.set_upload_id(Id('u'));
  upload.set_reference_id(Id('r'));
  upload.add_missing()->set_begin(2);
  upload.mutable_missing(0)->set_end(3);
  broker_.script().begin_put = upload;
  v1::WriteKvResponse done;
  done.set_reference_id(Id('r'));
  done.set_visible(true);
  broker_.script().write = done;
  ASSERT_EQ(Ctl({"put", "--ids=" + ids, "--kv=" + file, "--alias=doc", "--ttl_ms=5000",
                 "--priority=9", "--durability=memory"}),
            0)
      << err_;
  EXPECT_EQ(out_,
            "id      72727272727272727272727272727272\n"
            "tokens  3, sent: 1\n"
            "sent    32 B\n"
            "state   memory\n");
  testing::BrokerRecord record = broker_.record();
  EXPECT_EQ(record.puts.at(0).model(), Fingerprint('m'));
  EXPECT_EQ(record.puts[0].token_ids_size(), 3);
  EXPECT_EQ(record.puts[0].alias(), "doc");
  EXPECT_EQ(record.puts[0].ttl_ms(), 5000u);
  EXPECT_EQ(record.puts[0].priority(), 9u);
  EXPECT_EQ(record.puts[0].durability(), v1::DURABILITY_MEMORY);
  ASSERT_EQ(record.writes.size(), 4u);
  EXPECT_EQ(record.writes[3].payload(), testing::RowBytes({1, 1, 2, 1}, 8));
  ASSERT_EQ(Ctl({"put", "--json", "--ids=" + ids, "--kv=" + file, "--plane_bytes=8,8"}), 0);
  EXPECT_EQ(Json().fields().at("sent_bytes").number_value(), 32);
  EXPECT_EQ(Ctl({"put", "--ids=" + ids, "--kv=" + file, "--plane_bytes=8,4"}), 1);
  EXPECT_EQ(Ctl({"put", "--ids=" + ids, "--kv=" + Write("short", "x")}), 1);
  EXPECT_THAT(err_, HasSubstr("1 bytes, but 3 tokens of this model have 96"));
}

TEST_F(RunTest, FindShowsTheMatchAndGivesItBack) {
  broker_.script().find = testing::SampleMatch();
  ASSERT_EQ(Ctl({"find", "--ids=" + TargetIds(), "--mode=exact", "--kl_target=0.01"}), 0) << err_;
  EXPECT_EQ(out_,
            "kind        shifted\n"
            "matched     10 of 16 tokens (62.5%)\n"
            "recomputed  37.5%\n"
            "transfer    2.0 KiB\n"
            "\n"
            "plan\n"
            "preset     heads\n"
            "mandatory  6 tokens in 3 range(s)\n"
            "question   3 tokens\n"
            "\n"
            "REFERENCE  ID            ALIAS  TOKENS\n"
            "        0  616161616161  doc        12\n"
            "        1  626262626262  -          12\n"
            "\n"
            "TARGET  TOKENS  REFERENCE  SOURCE  KIND\n"
            "     2       6          0       0  exact\n"
            "     9       4          1       8  token\n");
  ASSERT_EQ(Ctl({"find", "--ids=" + TargetIds(), "--preset=SemShareKV", "--json"}), 0);
  EXPECT_EQ(Json().fields().at("match").struct_value().fields().at("matched_tokens").number_value(),
            10);
  const testing::BrokerRecord record = broker_.record();
  EXPECT_EQ(record.finds.at(0).mode(), v1::MATCH_MODE_EXACT);
  EXPECT_EQ(record.finds[0].kl_target(), 0.01);
  EXPECT_EQ(record.finds.at(1).mode(), v1::MATCH_MODE_SEMSHAREKV);
  EXPECT_EQ(record.finds[1].preset(), v1::PRESET_SEMSHAREKV);
  EXPECT_EQ(record.releases.size(), 2u);
}

TEST_F(RunTest, AMissIsShownAndIsNoFailureOfFind) {
  v1::FindMatchResponse miss;
  miss.mutable_no_match()->set_reason(v1::NO_MATCH_REASON_NO_CANDIDATE);
  miss.mutable_no_match()->set_detail("nothing like it");
  broker_.script().find = miss;
  ASSERT_EQ(Ctl({"find", "--ids=" + TargetIds()}), 0);
  EXPECT_EQ(out_, "kind    miss\nreason  no_candidate (nothing like it)\n");
  EXPECT_EQ(Ctl({"read", "--ids=" + TargetIds(), "--out=" + Path("rows")}), 1);
  EXPECT_EQ(err_, "semsharectl: NOT_FOUND: no match: no_candidate (nothing like it)\n");
  EXPECT_FALSE(std::filesystem::exists(Path("rows")));
}

TEST_F(RunTest, ReadWritesTheRowsOrNothing) {
  broker_.script().find = testing::SampleMatch();
  const KvShape shape = UniformShape(2, {8, 8});
  broker_.script().read_messages = testing::FramesOf(shape, 10, 4);
  ASSERT_EQ(Ctl({"read", "--ids=" + TargetIds(), "--out=" + Path("rows"), "--json"}), 0) << err_;
  EXPECT_EQ(Json().fields().at("bytes").number_value(), 320);
  std::ostringstream rows;
  rows << std::ifstream(Path("rows"), std::ios::binary).rdbuf();
  std::string expected;
  for (uint32_t layer : {0u, 1u}) {
    for (uint32_t plane : {0u, 1u}) expected += testing::RowBytes({layer, plane, 0, 10}, 8);
  }
  EXPECT_EQ(rows.str(), expected);
  broker_.script().read_messages.pop_back();
  EXPECT_EQ(Ctl({"read", "--ids=" + TargetIds(), "--out=" + Path("half")}), 1);
  EXPECT_FALSE(std::filesystem::exists(Path("half")));
  EXPECT_EQ(broker_.record().releases.size(), 2u);
}

}  // namespace
}  // namespace semshare::client::ctl
