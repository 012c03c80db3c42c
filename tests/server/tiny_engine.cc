#include "tests/server/tiny_engine.h"

#include <cmath>
#include <random>
#include <utility>

#include "kernels/base/status_macros.h"
#include "server/sha256.h"

namespace semshare {
namespace {

std::string Digest(const std::string& text) {
  Sha256 sha;
  sha.Update(text);
  return sha.Finish();
}

RotaryDescriptor Rotary() {
  RotaryDescriptor rotary;
  rotary.width = TinyEngine::kWidth;
  for (int j = 0; j < TinyEngine::kWidth / 2; ++j) {
    rotary.inv_freq.push_back(static_cast<float>(std::pow(1e4, -2.0 * j / TinyEngine::kWidth)));
  }
  return rotary;
}

}  // namespace

TinyEngine::TinyEngine(uint64_t seed) : seed_(seed) {
  std::vector<PlaneLayout> planes(2);
  planes[0] = {"k", kHeads, kWidth, 0};
  planes[1] = {"v", kHeads, kWidth, -1};
  absl::StatusOr<KvLayout> layout =
      KvLayout::Create(Dtype::kFloat32, {kLayers, planes}, {Rotary()});
  SEMSHARE_CHECK(layout.ok());
  info_.layout = *std::move(layout);
  info_.name = "tiny";
  info_.serialized = "tiny " + std::to_string(seed);
  info_.fingerprint = Digest(info_.serialized);
  info_.vocab_size = kVocab;
  info_.embedding_width = kEmbedding;
  info_.max_positions = kMaxPositions;
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  table_.resize(int64_t{kVocab} * kEmbedding);
  for (float& value : table_) value = normal(random);
  info_.embedding_digest =
      Digest(std::string(reinterpret_cast<const char*>(table_.data()), table_.size() * 4));
}

std::vector<float> TinyEngine::Row(int layer, int plane, uint32_t id, int64_t position,
                                   bool lie) const {
  std::mt19937_64 random(seed_ * 1000003 + id * 64 + layer * 2 + plane);
  std::normal_distribution<float> normal;
  std::vector<float> row(kHeads * kWidth);
  for (float& value : row) value = normal(random);
  if (plane == 1) return row;
  const RotaryDescriptor rotary = Rotary();
  for (int head = 0; head < kHeads; ++head) {
    for (int j = 0; j < kWidth / 2; ++j) {
      const float angle = static_cast<float>(position) * static_cast<float>(rotary.inv_freq[j]);
      float& x = row[head * kWidth + (lie ? 2 * j : j)];
      float& y = row[head * kWidth + (lie ? 2 * j + 1 : j + kWidth / 2)];
      const double turned = x * std::cos(double{angle}) - y * std::sin(double{angle});
      y = static_cast<float>(x * std::sin(double{angle}) + y * std::cos(double{angle}));
      x = static_cast<float>(turned);
    }
  }
  return row;
}

std::vector<float> TinyEngine::Rows(int layer, int plane, const std::vector<uint32_t>& ids,
                                    const std::vector<int64_t>& positions) const {
  std::vector<float> rows;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::vector<float> row = Row(layer, plane, ids[i], positions[i], false);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return rows;
}

std::vector<ProbeSample> TinyEngine::Probe(bool lie) const {
  std::vector<ProbeSample> samples;
  for (const uint32_t id : {3u, 17u, 101u, 400u}) {
    for (const int64_t position : {int64_t{0}, int64_t{1}, int64_t{kMaxPositions - 1}}) {
      ProbeSample sample{id, position, ""};
      for (int layer = 0; layer < kLayers; ++layer) {
        for (int plane = 0; plane < 2; ++plane) {
          const std::vector<float> row = Row(layer, plane, id, position, lie);
          sample.rows.append(reinterpret_cast<const char*>(row.data()), row.size() * 4);
        }
      }
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

ModelRegistration TinyEngine::Registration() const { return {info_, table_, {}, Probe(false)}; }

ModelRegistration TinyEngine::LyingRegistration() const { return {info_, table_, {}, Probe(true)}; }

ModelInfoParser TinyEngine::Parser() const {
  return [](std::string_view serialized) -> absl::StatusOr<ModelInfo> {
    const std::string text(serialized);
    return TinyEngine(std::stoull(text.substr(text.find(' ') + 1))).info();
  };
}

std::vector<uint32_t> RandomIds(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint32_t> ids(count);
  for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % TinyEngine::kVocab);
  return ids;
}

}  // namespace semshare
