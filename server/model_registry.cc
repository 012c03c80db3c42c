#include "server/model_registry.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "server/sha256.h"

namespace semshare {
namespace {

// Keys: <tenant>/<fingerprint in hex>/<part>. The spec is written last: a model exists if and only
// if its spec does.
constexpr std::string_view kSpecPart = "spec";
constexpr std::string_view kProbePart = "probe/";
constexpr std::string_view kTablePart = "table/";
constexpr std::string_view kWeightsPart = "weights/";
constexpr size_t kPartBytes = size_t{1} << 20;

std::string KeyPrefix(std::string_view tenant, std::string_view fingerprint) {
  const std::string hex =
      absl::BytesToHexString(absl::string_view(fingerprint.data(), fingerprint.size()));
  return std::string(tenant) + "/" + hex + "/";
}

std::string_view AsBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::vector<float> AsFloats(std::string_view bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

std::string Digest(std::string_view bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

// token id, position, rows; fixed widths, then the rows.
std::string EncodeProbe(const std::vector<ProbeSample>& samples) {
  std::string bytes;
  for (const ProbeSample& sample : samples) {
    const uint64_t header[3] = {sample.token_id, static_cast<uint64_t>(sample.position),
                                sample.rows.size()};
    bytes.append(reinterpret_cast<const char*>(header), sizeof(header));
    bytes += sample.rows;
  }
  return bytes;
}

absl::StatusOr<std::vector<ProbeSample>> DecodeProbe(std::string_view bytes) {
  std::vector<ProbeSample> samples;
  while (!bytes.empty()) {
    uint64_t header[3];
    if (bytes.size() < sizeof(header)) return absl::DataLossError("probe record is cut short");
    std::memcpy(header, bytes.data(), sizeof(header));
    bytes.remove_prefix(sizeof(header));
    if (header[2] > bytes.size()) return absl::DataLossError("probe record is cut short");
    samples.push_back({static_cast<uint32_t>(header[0]), static_cast<int64_t>(header[1]),
                       std::string(bytes.substr(0, header[2]))});
    bytes.remove_prefix(header[2]);
  }
  return samples;
}

absl::Status CheckFinite(const std::vector<float>& values, const char* field, bool non_negative) {
  for (const float value : values) {
    if (!std::isfinite(value) || (non_negative && value < 0)) {
      return absl::InvalidArgumentError(absl::StrCat(field, " holds ", value));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTables(const ModelRegistration& registration) {
  const ModelInfo& info = registration.info;
  const size_t expected = static_cast<size_t>(info.vocab_size) * info.embedding_width;
  if (registration.table.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat("embedding_table: expected ", expected,
                                                   " numbers, got ", registration.table.size()));
  }
  if (Digest(AsBytes(registration.table)) != info.embedding_digest) {
    return absl::FailedPreconditionError("embedding_table does not match spec.embedding_digest");
  }
  SEMSHARE_RETURN_IF_ERROR(CheckFinite(registration.table, "embedding_table", false));
  const bool weights_named = !info.token_weights_digest.empty();
  if (weights_named != !registration.weights.empty()) {
    return absl::InvalidArgumentError("token_weights and spec.token_weights_digest go together");
  }
  if (!weights_named) return absl::OkStatus();
  if (static_cast<int64_t>(registration.weights.size()) != info.vocab_size) {
    return absl::InvalidArgumentError("token_weights: one number per token id is needed");
  }
  if (Digest(AsBytes(registration.weights)) != info.token_weights_digest) {
    return absl::FailedPreconditionError("token_weights do not match spec.token_weights_digest");
  }
  return CheckFinite(registration.weights, "token_weights", true);
}

int64_t ResidentBytes(const ModelInfo& info) {
  return info.vocab_size * (info.embedding_width + kSignatureBits + 1) *
         static_cast<int64_t>(sizeof(float));
}

}  // namespace

absl::Status ModelRegistry::CheckRoom(int64_t bytes) const {
  if (static_cast<int>(models_.size()) >= limits_.max_models) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", limits_.max_models, " models can be registered"));
  }
  if (resident_bytes_ + bytes > model_memory_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat("the model's tables need ", bytes, " bytes, ",
                                                     model_memory_bytes_ - resident_bytes_,
                                                     " of model_memory_bytes are free"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelPtr> ModelRegistry::Build(std::string_view tenant, ModelInfo info,
                                              const std::vector<float>& table,
                                              std::vector<float> weights) {
  auto model = std::make_shared<Model>();
  if (weights.empty()) weights = DefaultTokenWeights(info.vocab_size);
  EmbeddingSpec spec{info.vocab_size, info.embedding_width, info.projection_seed};
  SEMSHARE_ASSIGN_OR_RETURN(model->space, EmbeddingSpace::Create(spec, table, weights, backend_));
  model->ns = MakeNamespaceId(tenant, info.fingerprint);
  CandidateIndexOptions index_options;
  index_options.gram_key = model->ns.low;
  SEMSHARE_ASSIGN_OR_RETURN(model->index, CandidateIndex::Create(index_options, backend_));
  model->tenant = std::string(tenant);
  model->resident_bytes = ResidentBytes(info);
  model->info = std::move(info);
  return model;
}

absl::StatusOr<RegisterResult> ModelRegistry::Register(std::string_view tenant,
                                                       const ModelRegistration& registration) {
  MutexLock registering(&register_mutex_);
  SEMSHARE_ASSIGN_OR_RETURN(const double probe_error,
                            CheckProbe(registration.info, registration.probe));
  const std::string prefix = KeyPrefix(tenant, registration.info.fingerprint);
  if (absl::StatusOr<ModelPtr> known = Find(tenant, registration.info.fingerprint); known.ok()) {
    SEMSHARE_ASSIGN_OR_RETURN(const std::string bytes, ReadParts(prefix + std::string(kProbePart)));
    SEMSHARE_ASSIGN_OR_RETURN(const std::vector<ProbeSample> stored, DecodeProbe(bytes));
    SEMSHARE_RETURN_IF_ERROR(CompareProbes((*known)->info, stored, registration.probe).status());
    return RegisterResult{false, probe_error};
  }
  {
    MutexLock lock(&mutex_);
    SEMSHARE_RETURN_IF_ERROR(CheckRoom(ResidentBytes(registration.info)));
  }
  SEMSHARE_RETURN_IF_ERROR(CheckTables(registration));
  SEMSHARE_ASSIGN_OR_RETURN(
      ModelPtr model, Build(tenant, registration.info, registration.table, registration.weights));
  SEMSHARE_RETURN_IF_ERROR(Store(prefix, registration));
  MutexLock lock(&mutex_);
  resident_bytes_ += model->resident_bytes;
  models_[prefix] = std::move(model);
  return RegisterResult{true, probe_error};
}

absl::Status ModelRegistry::Store(const std::string& prefix,
                                  const ModelRegistration& registration) {
  const std::string probe = EncodeProbe(registration.probe);
  const std::pair<std::string_view, std::string_view> parts[] = {
      {kTablePart, AsBytes(registration.table)},
      {kWeightsPart, AsBytes(registration.weights)},
      {kProbePart, probe}};
  for (const auto& [part, bytes] : parts) {
    for (size_t at = 0; at < bytes.size(); at += kPartBytes) {
      const std::string key = prefix + std::string(part) + absl::StrFormat("%08d", at / kPartBytes);
      const DiskEntry entry{key, bytes.substr(at, kPartBytes)};
      SEMSHARE_RETURN_IF_ERROR(disk_->Put(DiskTable::kModels, {&entry, 1}));
    }
  }
  const DiskEntry spec{prefix + std::string(kSpecPart), registration.info.serialized};
  return disk_->Put(DiskTable::kModels, {&spec, 1});
}

absl::StatusOr<std::string> ModelRegistry::ReadParts(const std::string& prefix) {
  std::string bytes;
  SEMSHARE_RETURN_IF_ERROR(
      disk_->Scan(DiskTable::kModels, prefix, [&](std::string_view, std::string_view value) {
        bytes.append(value);
        return true;
      }));
  return bytes;
}

absl::StatusOr<ModelPtr> ModelRegistry::LoadModel(const std::string& prefix,
                                                  std::string_view spec) {
  SEMSHARE_ASSIGN_OR_RETURN(ModelInfo info, parser_(spec));
  SEMSHARE_ASSIGN_OR_RETURN(const std::string table, ReadParts(prefix + std::string(kTablePart)));
  SEMSHARE_ASSIGN_OR_RETURN(const std::string weights,
                            ReadParts(prefix + std::string(kWeightsPart)));
  ModelRegistration registration{std::move(info), AsFloats(table), AsFloats(weights), {}};
  SEMSHARE_RETURN_IF_ERROR(CheckTables(registration));
  const std::string tenant = prefix.substr(0, prefix.find('/'));
  return Build(tenant, std::move(registration.info), registration.table,
               std::move(registration.weights));
}

absl::StatusOr<std::vector<std::string>> ModelRegistry::Load() {
  std::vector<std::pair<std::string, std::string>> specs;
  SEMSHARE_RETURN_IF_ERROR(
      disk_->Scan(DiskTable::kModels, "", [&](std::string_view key, std::string_view value) {
        const size_t slash = key.rfind('/');
        if (slash != std::string_view::npos && key.substr(slash + 1) == kSpecPart) {
          specs.emplace_back(key.substr(0, slash + 1), value);
        }
        return true;
      }));
  std::vector<std::string> warnings;
  for (const auto& [prefix, spec] : specs) {
    absl::StatusOr<ModelPtr> model = LoadModel(prefix, spec);
    if (!model.ok()) {
      warnings.push_back(absl::StrCat("model ", prefix, ": ", model.status().ToString()));
      continue;
    }
    MutexLock lock(&mutex_);
    resident_bytes_ += (*model)->resident_bytes;
    models_[prefix] = *std::move(model);
  }
  return warnings;
}

absl::StatusOr<ModelPtr> ModelRegistry::Find(std::string_view tenant,
                                             std::string_view fingerprint) const {
  if (fingerprint.size() != kSha256Bytes) {
    return absl::InvalidArgumentError("model: a fingerprint has 32 bytes");
  }
  MutexLock lock(&mutex_);
  const auto it = models_.find(KeyPrefix(tenant, fingerprint));
  if (it == models_.end()) return absl::NotFoundError("model is not registered");
  return it->second;
}

ModelPtr ModelRegistry::FindByNamespace(const NamespaceId& ns) const {
  MutexLock lock(&mutex_);
  for (const auto& [key, model] : models_) {
    if (model->ns == ns) return model;
  }
  return nullptr;
}

std::vector<ModelPtr> ModelRegistry::All() const {
  std::vector<ModelPtr> models;
  MutexLock lock(&mutex_);
  for (const auto& [key, model] : models_) models.push_back(model);
  return models;
}

std::vector<ModelPtr> ModelRegistry::List(std::string_view tenant) const {
  std::vector<ModelPtr> models = All();
  std::erase_if(models, [&](const ModelPtr& model) { return model->tenant != tenant; });
  std::sort(models.begin(), models.end(), [](const ModelPtr& a, const ModelPtr& b) {
    return a->info.fingerprint < b->info.fingerprint;
  });
  return models;
}

absl::Status ModelRegistry::Delete(std::string_view tenant, std::string_view fingerprint) {
  MutexLock registering(&register_mutex_);
  const std::string prefix = KeyPrefix(tenant, fingerprint);
  SEMSHARE_RETURN_IF_ERROR(Find(tenant, fingerprint).status());
  // The spec goes first: a crash in between leaves parts that no model owns, and a later
  // registration overwrites them. A spec that the disk keeps makes the model stay, so that the
  // deletion can be tried again.
  const std::string spec = prefix + std::string(kSpecPart);
  SEMSHARE_RETURN_IF_ERROR(disk_->Delete(DiskTable::kModels, {&spec, 1}));
  {
    MutexLock lock(&mutex_);
    const auto it = models_.find(prefix);
    resident_bytes_ -= it->second->resident_bytes;
    models_.erase(it);
  }
  std::vector<std::string> keys;
  SEMSHARE_RETURN_IF_ERROR(
      disk_->Scan(DiskTable::kModels, prefix, [&](std::string_view key, std::string_view) {
        keys.emplace_back(key);
        return true;
      }));
  return disk_->Delete(DiskTable::kModels, keys);
}

}  // namespace semshare
