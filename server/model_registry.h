// ModelRegistry: the registered models of every tenant, in memory and on disk.
//
// Thread-safe. Owns the models. No disk or device work is done under its lock.
#ifndef SEMSHARE_SERVER_MODEL_REGISTRY_H_
#define SEMSHARE_SERVER_MODEL_REGISTRY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/base/mutex.h"
#include "server/limits.h"
#include "server/model.h"
#include "storage/disk_tier.h"

namespace semshare {

// What a worker sends to register a model.
struct ModelRegistration {
  ModelInfo info;
  std::vector<float> table;    // [vocab][width]; may be empty if the model is known
  std::vector<float> weights;  // [vocab]; empty: the broker makes them
  std::vector<ProbeSample> probe;
};

struct RegisterResult {
  bool created = false;
  double probe_error = 0;
};

class ModelRegistry {
 public:
  // `backend` and `disk` must outlive the registry. `model_memory_bytes` bounds what all models
  // keep resident (tables and projected rows).
  ModelRegistry(Backend* backend, DiskTier* disk, ModelInfoParser parser, const Limits& limits,
                int64_t model_memory_bytes)
      : backend_(backend),
        disk_(disk),
        parser_(std::move(parser)),
        limits_(limits),
        model_memory_bytes_(model_memory_bytes) {}

  // Reads all models from disk. Called once, before any other call. A model that cannot be read
  // (a record fails its digest) is skipped and named in the returned warnings.
  absl::StatusOr<std::vector<std::string>> Load();

  // Checks the probe and, for a new model, the table; stores it durably. FAILED_PRECONDITION: the
  // probe or a digest disagrees. RESOURCE_EXHAUSTED: too many models or too much memory.
  absl::StatusOr<RegisterResult> Register(std::string_view tenant,
                                          const ModelRegistration& registration);

  // NOT_FOUND if this tenant has not registered the fingerprint.
  absl::StatusOr<ModelPtr> Find(std::string_view tenant, std::string_view fingerprint) const;
  // Null if no model has this namespace.
  ModelPtr FindByNamespace(const NamespaceId& ns) const;
  std::vector<ModelPtr> List(std::string_view tenant) const;
  // All models of all tenants.
  std::vector<ModelPtr> All() const;
  absl::Status Delete(std::string_view tenant, std::string_view fingerprint);

 private:
  absl::StatusOr<ModelPtr> Build(std::string_view tenant, ModelInfo info,
                                 const std::vector<float>& table, std::vector<float> weights);
  absl::Status Store(const std::string& prefix, const ModelRegistration& registration);
  absl::StatusOr<ModelPtr> LoadModel(const std::string& prefix, std::string_view spec);
  absl::StatusOr<std::string> ReadParts(const std::string& prefix);
  absl::Status CheckRoom(int64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Backend* const backend_;
  DiskTier* const disk_;
  const ModelInfoParser parser_;
  const Limits limits_;
  const int64_t model_memory_bytes_;

  // Registrations are rare and heavy: one at a time. Held during disk and device work on purpose;
  // nothing else ever waits for it. Lock order: register_mutex_ before mutex_.
  Mutex register_mutex_;
  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, ModelPtr> models_ ABSL_GUARDED_BY(mutex_);
  int64_t resident_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_MODEL_REGISTRY_H_
