// semsharectl against a real semshared: what is stored is found, moved and read back, and survives
// a restart. The model is made of numbers; its rotation is real.
#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "client/cpp/client.h"
#include "client/cpp/ctl/run.h"
#include "client/cpp/model_digest.h"
#include "tests/client/cpp/daemon.h"

namespace semshare::client {
namespace {

using testing::Daemon;
using ::testing::HasSubstr;

constexpr uint32_t kLayers = 2;
constexpr uint32_t kPlanes = 2;  // k, v
constexpr uint32_t kHeads = 2;
constexpr uint32_t kWidth = 8;
constexpr uint32_t kVocabulary = 1000;
constexpr uint32_t kEmbeddingWidth = 16;
constexpr uint32_t kMaxPositions = 2048;
constexpr uint32_t kReferenceTokens = 300;
constexpr uint32_t kShift = 30;

double InvFreq(uint32_t pair) { return std::pow(10000.0, -2.0 * pair / kWidth); }

// One row [head][width] as a model without attention would compute it: K turned to its position.
std::vector<float> Row(uint32_t seed, uint32_t layer, uint32_t plane, uint32_t position) {
  std::mt19937 random(seed * 31 + layer * 7 + plane);
  std::vector<float> row(kHeads * kWidth);
  for (float& value : row) value = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
  if (plane != 0) return row;
  for (uint32_t head = 0; head < kHeads; ++head) {
    for (uint32_t pair = 0; pair < kWidth / 2; ++pair) {
      float& x = row[head * kWidth + pair];
      float& y = row[head * kWidth + pair + kWidth / 2];
      const double angle = position * InvFreq(pair);
      const double turned = x * std::cos(angle) - y * std::sin(angle);
      y = static_cast<float>(x * std::sin(angle) + y * std::cos(angle));
      x = static_cast<float>(turned);
    }
  }
  return row;
}

void Append(const std::vector<float>& row, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
}

v1::ModelSpec Spec() {
  v1::ModelSpec spec;
  spec.set_name("numbers");
  spec.set_layers(kLayers);
  spec.set_dtype(v1::DTYPE_FLOAT32);
  v1::LayerGroup* group = spec.add_layer_groups();
  for (uint32_t layer = 0; layer < kLayers; ++layer) group->add_layers(layer);
  for (const char* name : {"k", "v"}) {
    v1::PlaneSpec* plane = group->add_planes();
    plane->set_name(name);
    plane->set_heads(kHeads);
    plane->set_width(kWidth);
  }
  v1::RotarySpec* rotary = group->mutable_planes(0)->mutable_rotary();
  rotary->set_width(kWidth);
  rotary->set_pairing(v1::ROTARY_PAIRING_HALF_SPLIT);
  rotary->set_angle_precision(v1::ANGLE_PRECISION_FLOAT64);
  for (uint32_t pair = 0; pair < kWidth / 2; ++pair) rotary->add_inv_freq(InvFreq(pair));
  rotary->set_magnitude(1);
  spec.set_vocab_size(kVocabulary);
  spec.set_embedding_width(kEmbeddingWidth);
  spec.set_max_positions(kMaxPositions);
  spec.set_weights_digest(std::string(32, 'w'));
  spec.set_weight_quantization("none");
  spec.set_attention_variant("full");
  spec.set_projection_seed(7);
  spec.set_signature_version(1);
  return spec;
}

v1::ProbeSample Probe(uint32_t token, uint32_t position) {
  v1::ProbeSample probe;
  probe.set_token_id(token);
  probe.set_position(position);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    for (uint32_t plane = 0; plane < kPlanes; ++plane) {
      Append(Row(token, layer, plane, position), probe.mutable_rows());
    }
  }
  return probe;
}

std::vector<uint32_t> RandomIds(uint32_t seed, uint32_t count) {
  std::mt19937 random(seed);
  std::vector<uint32_t> ids(count);
  for (uint32_t& id : ids) id = random() % kVocabulary;
  return ids;
}

class SemsharectlTest : public ::testing::Test {
 protected:
  SemsharectlTest() {
    std::string name = ::testing::TempDir() + "/semsharectl_XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~SemsharectlTest() override {
    daemon_ = nullptr;
    std::filesystem::remove_all(folder_);
  }

  void StartDaemon() {
    absl::StatusOr<std::unique_ptr<Daemon>> daemon =
        Daemon::Start(SEMSHARE_SEMSHARED_PATH, folder_);
    ASSERT_TRUE(daemon.ok()) << daemon.status() << '\n' << Contents("semshared.log");
    daemon_ = *std::move(daemon);
  }

  int Ctl(std::vector<std::string> words) {
    words.insert(words.begin(), "--address_file=" + daemon_->address_file());
    std::ostringstream out;
    std::ostringstream err;
    const int code = ctl::Run(words, out, err);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  google::protobuf::Struct Json() {
    google::protobuf::Struct json;
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(out_, &json).ok()) << out_;
    return json;
  }

  std::string Path(const std::string& name) { return folder_ + "/" + name; }

  std::string Contents(const std::string& name) {
    std::ostringstream text;
    text << std::ifstream(Path(name), std::ios::binary).rdbuf();
    return text.str();
  }

  void WriteIds(const std::string& name, const std::vector<uint32_t>& ids) {
    std::ofstream file(Path(name));
    for (const uint32_t id : ids) file << id << '\n';
  }

  google::protobuf::Struct Addresses() {
    google::protobuf::Struct json;
    const std::string text = Contents("address.json");
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(text, &json).ok()) << text;
    return json;
  }

  // What the command line cannot do: only an engine registers a model.
  void RegisterModel() {
    auto client = Client::Create({Addresses().fields().at("grpc").string_value()});
    ASSERT_TRUE(client.ok()) << client.status();
    std::mt19937 random(3);
    std::vector<float> table(kVocabulary * kEmbeddingWidth);
    for (float& value : table) value = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
    v1::ModelSpec spec = Spec();
    SealSpec(table, {}, &spec);
    ModelData data;
    data.embedding_table = table;
    for (const uint32_t token : {1u, 2u, 3u, 4u}) {
      for (const uint32_t position : {0u, 1u, kMaxPositions - 1}) {
        data.probes.push_back(Probe(token, position));
      }
    }
    absl::StatusOr<v1::RegisterModelResponse> registered = (*client)->RegisterModel(spec, data);
    ASSERT_TRUE(registered.ok()) << registered.status();
    EXPECT_TRUE(registered->created());
    EXPECT_TRUE(*(*client)->GetModel(spec.fingerprint()));
  }

  // The reference "doc" and its files.
  void PutReference() {
    reference_ids_ = RandomIds(11, kReferenceTokens);
    WriteIds("reference.ids", reference_ids_);
    std::string kv;
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t plane = 0; plane < kPlanes; ++plane) {
        for (uint32_t t = 0; t < kReferenceTokens; ++t) Append(Row(1000 + t, layer, plane, t), &kv);
      }
    }
    std::ofstream(Path("reference.kv"), std::ios::binary) << kv;
    ASSERT_EQ(Ctl({"put", "--ids=" + Path("reference.ids"), "--kv=" + Path("reference.kv"),
                   "--alias=doc", "--json"}),
              0)
        << err_;
    EXPECT_TRUE(Json().fields().at("durable").bool_value());
    EXPECT_EQ(Json().fields().at("sent_tokens").number_value(), kReferenceTokens);
    // Another preamble, the reference, a question.
    std::vector<uint32_t> target = RandomIds(12, kShift);
    target.insert(target.end(), reference_ids_.begin(), reference_ids_.end());
    const std::vector<uint32_t> question = RandomIds(13, 25);
    target.insert(target.end(), question.begin(), question.end());
    WriteIds("target.ids", target);
  }

  // Reads the match of the target and compares it with the model's own rows at the new positions.
  void ExpectTargetIsRead() {
    ASSERT_EQ(Ctl({"find", "--ids=" + Path("target.ids"), "--mode=exact", "--json"}), 0) << err_;
    v1::FindMatchResponse found;
    ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(out_, &found).ok());
    ASSERT_TRUE(found.has_match()) << out_;
    ASSERT_EQ(found.match().kind(), v1::RESULT_KIND_SHIFTED);
    ASSERT_EQ(Ctl({"read", "--ids=" + Path("target.ids"), "--mode=exact", "--out=" + Path("rows")}),
              0)
        << err_;
    std::string expected;
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t plane = 0; plane < kPlanes; ++plane) {
        for (const v1::Segment& segment : found.match().segments()) {
          ASSERT_EQ(segment.target_begin(), segment.source_begin() + kShift);
          for (uint32_t i = 0; i < segment.tokens(); ++i) {
            Append(Row(1000 + segment.source_begin() + i, layer, plane, segment.target_begin() + i),
                   &expected);
          }
        }
      }
    }
    const std::string rows = Contents("rows");
    ASSERT_EQ(rows.size(), expected.size());
    ASSERT_GE(found.match().matched_tokens(), kReferenceTokens - 1);
    float largest_error = 0;
    for (size_t i = 0; i < rows.size(); i += sizeof(float)) {
      float got = 0;
      float want = 0;
      std::memcpy(&got, rows.data() + i, sizeof(got));
      std::memcpy(&want, expected.data() + i, sizeof(want));
      ASSERT_TRUE(std::isfinite(got));
      largest_error = std::max(largest_error, std::abs(got - want));
    }
    // Elements are about 1; two roundings of float32.
    EXPECT_LT(largest_error, 1e-6f);
  }

  std::string folder_;
  std::unique_ptr<Daemon> daemon_;
  std::vector<uint32_t> reference_ids_;
  std::string out_;
  std::string err_;
};

TEST_F(SemsharectlTest, StoresFindsMovesReadsAndForgets) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_EQ(Ctl({"health"}), 0) << err_;
  EXPECT_EQ(out_, "SERVING\n");
  ASSERT_EQ(Ctl({"info"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("cpu"));
  ASSERT_NO_FATAL_FAILURE(RegisterModel());
  ASSERT_EQ(Ctl({"models"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("numbers"));
  ASSERT_NO_FATAL_FAILURE(PutReference());
  ASSERT_NO_FATAL_FAILURE(ExpectTargetIsRead());
  // Again: nothing has to be sent.
  ASSERT_EQ(
      Ctl({"put", "--ids=" + Path("reference.ids"), "--kv=" + Path("reference.kv"), "--json"}), 0)
      << err_;
  EXPECT_EQ(Json().fields().at("sent_tokens").number_value(), 0);
  ASSERT_EQ(Ctl({"find", "--ids=" + Path("reference.ids")}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("exact_prefix"));
  WriteIds("other.ids", RandomIds(99, 300));
  ASSERT_EQ(Ctl({"find", "--ids=" + Path("other.ids")}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("miss"));
  ASSERT_EQ(Ctl({"list", "--json"}), 0) << err_;
  v1::ListResponse list;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(out_, &list).ok());
  ASSERT_EQ(list.references_size(), 1);
  EXPECT_EQ(list.references(0).alias(), "doc");
  ASSERT_EQ(Ctl({"pin", "doc"}), 0) << err_;
  ASSERT_EQ(Ctl({"describe", "doc"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("pinned             yes"));
  const std::string id = out_.substr(out_.find_first_not_of(' ', 2), 32);
  ASSERT_EQ(Ctl({"unpin", id.substr(0, 8)}), 0) << err_;
  ASSERT_EQ(Ctl({"stats", "--json"}), 0) << err_;
  EXPECT_EQ(Json().fields().at("references").string_value(), "1");
  EXPECT_EQ(Json().fields().at("leases").string_value(), "0") << "every lease was given back";
  ASSERT_EQ(Ctl({"trim", "--before=1d"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("removed 0"));
  ASSERT_EQ(Ctl({"delete", id}), 0) << err_;
  EXPECT_EQ(Ctl({"describe", "doc"}), 1);
  EXPECT_THAT(err_, HasSubstr("NOT_FOUND"));
}

TEST_F(SemsharectlTest, ARestartAndAKillLoseNothingDurable) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_NO_FATAL_FAILURE(RegisterModel());
  ASSERT_NO_FATAL_FAILURE(PutReference());
  EXPECT_EQ(daemon_->Stop(SIGTERM), 0) << Contents("semshared.log");
  EXPECT_EQ(Ctl({"health"}), 1);
  EXPECT_THAT(err_, HasSubstr("UNAVAILABLE"));
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_NO_FATAL_FAILURE(ExpectTargetIsRead());
  daemon_->Stop(SIGKILL);
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_NO_FATAL_FAILURE(ExpectTargetIsRead());
}

TEST_F(SemsharectlTest, ADrainedBrokerRefusesNewWork) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_NO_FATAL_FAILURE(RegisterModel());
  ASSERT_EQ(Ctl({"drain"}), 0) << err_;
  WriteIds("some.ids", RandomIds(1, 200));
  EXPECT_EQ(Ctl({"find", "--ids=" + Path("some.ids")}), 1);
  EXPECT_THAT(err_, HasSubstr("UNAVAILABLE"));
  ASSERT_EQ(Ctl({"stats"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("draining            yes"));
}

TEST_F(SemsharectlTest, TheProgramItselfWorks) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const std::string command = std::string(SEMSHARE_SEMSHARECTL_PATH) +
                              " --address_file=" + daemon_->address_file() + " health";
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  char text[64] = {};
  EXPECT_EQ(fread(text, 1, sizeof(text) - 1, pipe), 8u);
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_STREQ(text, "SERVING\n");
}

// What shadow checks find reaches FindMatch, the log and the command line, and can be undone there.
TEST_F(SemsharectlTest, ShadowChecksSwitchAKindOffUntilTheyAreForgotten) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_NO_FATAL_FAILURE(RegisterModel());
  ASSERT_NO_FATAL_FAILURE(PutReference());
  const std::vector<std::string> find = {"find", "--ids=" + Path("target.ids"), "--mode=exact"};
  ASSERT_EQ(Ctl(find), 0) << err_;
  ASSERT_THAT(out_, HasSubstr("shifted"));
  ASSERT_EQ(Ctl({"models", "--json"}), 0) << err_;
  v1::ListModelsResponse models;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(out_, &models).ok());
  auto client = Client::Create({Addresses().fields().at("grpc").string_value()});
  ASSERT_TRUE(client.ok()) << client.status();
  v1::ReportShadowCheckRequest check;
  check.set_model(models.models(0).fingerprint());
  check.set_kind(v1::RESULT_KIND_SHIFTED);
  check.set_kl_first(1.5);
  for (int i = 0; i < 8; ++i) {
    const auto answer = (*client)->ReportShadowCheck(check);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->disabled(), i == 7);
  }
  ASSERT_EQ(Ctl(find), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("disabled (shadow checks"));
  EXPECT_THAT(Contents("semshared.log"), HasSubstr("kind=RESULT_KIND_SHIFTED"));
  ASSERT_EQ(Ctl({"shadow"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("1.50000        0.0%  off, back in "));
  ASSERT_EQ(Ctl({"shadow", "--reset", "--kind=shifted"}), 0) << err_;
  EXPECT_EQ(out_, "forgot the checks of 1 kind(s) of match\n");
  ASSERT_EQ(Ctl(find), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("shifted"));
}

}  // namespace
}  // namespace semshare::client
