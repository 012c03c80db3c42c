// Model specs: limits, layout, fingerprint.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/rpc/convert.h"
#include "server/sha256.h"

namespace semshare {
namespace {

constexpr std::string_view kFingerprintDomain{"semshare.ModelSpec.v1\0", 22};

absl::Status OutOfRange(std::string_view field, uint64_t value, uint64_t low, uint64_t high) {
  return absl::InvalidArgumentError(absl::StrCat(absl::string_view(field.data(), field.size()),
                                                 ": expected ", low, "..", high, ", got ", value));
}

absl::Status CheckRange(std::string_view field, uint64_t value, uint64_t low, uint64_t high) {
  if (value < low || value > high) return OutOfRange(field, value, low, high);
  return absl::OkStatus();
}

absl::Status CheckText(const char* field, const std::string& text, size_t limit) {
  if (text.size() <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": at most ", limit, " bytes"));
}

absl::Status CheckDigest(const char* field, const std::string& digest) {
  if (digest.size() == kSha256Bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": expected 32 bytes"));
}

absl::StatusOr<Dtype> ToDtype(v1::Dtype dtype) {
  switch (dtype) {
    case v1::DTYPE_FLOAT32:
      return Dtype::kFloat32;
    case v1::DTYPE_FLOAT16:
      return Dtype::kFloat16;
    case v1::DTYPE_BFLOAT16:
      return Dtype::kBfloat16;
    default:
      return absl::UnimplementedError(
          absl::StrCat("dtype: ", static_cast<int>(dtype),
                       " has no kernel; supported: float32, float16, bfloat16"));
  }
}

absl::StatusOr<RotaryDescriptor> ToRotary(const v1::RotarySpec& spec) {
  RotaryDescriptor rotary;
  SEMSHARE_RETURN_IF_ERROR(CheckRange("rotary.width", spec.width(), 2, 65536));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("rotary.begin", spec.begin(), 0, 65536));
  if (spec.width() % 2 != 0) return absl::InvalidArgumentError("rotary.width: must be even");
  if (static_cast<uint32_t>(spec.inv_freq_size()) != spec.width() / 2) {
    return absl::InvalidArgumentError(absl::StrCat("rotary.inv_freq: expected ", spec.width() / 2,
                                                   " numbers, got ", spec.inv_freq_size()));
  }
  for (const double f : spec.inv_freq()) {
    if (!std::isfinite(f)) return absl::InvalidArgumentError("rotary.inv_freq: not finite");
  }
  if (!std::isfinite(spec.magnitude()) || spec.magnitude() <= 0) {
    return absl::InvalidArgumentError("rotary.magnitude: must be finite and positive");
  }
  if (spec.pairing() != v1::ROTARY_PAIRING_HALF_SPLIT &&
      spec.pairing() != v1::ROTARY_PAIRING_INTERLEAVED) {
    return absl::InvalidArgumentError("rotary.pairing: unknown value");
  }
  if (spec.angle_precision() != v1::ANGLE_PRECISION_FLOAT32 &&
      spec.angle_precision() != v1::ANGLE_PRECISION_FLOAT64) {
    return absl::InvalidArgumentError("rotary.angle_precision: unknown value");
  }
  rotary.begin = static_cast<int32_t>(spec.begin());
  rotary.width = static_cast<int32_t>(spec.width());
  rotary.pairing = spec.pairing() == v1::ROTARY_PAIRING_HALF_SPLIT ? RotaryPairing::kHalfSplit
                                                                   : RotaryPairing::kInterleaved;
  rotary.angle_precision = spec.angle_precision() == v1::ANGLE_PRECISION_FLOAT32
                               ? AnglePrecision::kFloat32
                               : AnglePrecision::kFloat64;
  rotary.inv_freq.assign(spec.inv_freq().begin(), spec.inv_freq().end());
  rotary.magnitude = spec.magnitude();
  return rotary;
}

absl::StatusOr<std::vector<PlaneLayout>> ToPlanes(const v1::LayerGroup& group,
                                                  std::vector<RotaryDescriptor>* rotaries) {
  std::vector<PlaneLayout> planes;
  for (const v1::PlaneSpec& spec : group.planes()) {
    PlaneLayout plane;
    SEMSHARE_RETURN_IF_ERROR(CheckText("plane.name", spec.name(), 32));
    SEMSHARE_RETURN_IF_ERROR(CheckRange("plane.heads", spec.heads(), 1, 1024));
    SEMSHARE_RETURN_IF_ERROR(CheckRange("plane.width", spec.width(), 1, 65536));
    plane.name = spec.name();
    plane.heads = static_cast<int32_t>(spec.heads());
    plane.width = static_cast<int32_t>(spec.width());
    if (spec.has_rotary()) {
      SEMSHARE_ASSIGN_OR_RETURN(RotaryDescriptor rotary, ToRotary(spec.rotary()));
      plane.rotary = static_cast<int32_t>(rotaries->size());
      for (size_t i = 0; i < rotaries->size(); ++i) {
        if ((*rotaries)[i] == rotary) plane.rotary = static_cast<int32_t>(i);
      }
      if (plane.rotary == static_cast<int32_t>(rotaries->size())) {
        rotaries->push_back(std::move(rotary));
      }
    }
    planes.push_back(std::move(plane));
  }
  return planes;
}

absl::StatusOr<KvLayout> ToLayout(const v1::ModelSpec& spec) {
  SEMSHARE_ASSIGN_OR_RETURN(const Dtype dtype, ToDtype(spec.dtype()));
  std::vector<std::vector<PlaneLayout>> layers(spec.layers());
  std::vector<bool> seen(spec.layers(), false);
  std::vector<RotaryDescriptor> rotaries;
  for (const v1::LayerGroup& group : spec.layer_groups()) {
    SEMSHARE_ASSIGN_OR_RETURN(const std::vector<PlaneLayout> planes, ToPlanes(group, &rotaries));
    for (const uint32_t layer : group.layers()) {
      if (layer >= spec.layers() || seen[layer]) {
        return absl::InvalidArgumentError(
            absl::StrCat("layer_groups.layers: ", layer, " is out of range or named twice"));
      }
      seen[layer] = true;
      layers[layer] = planes;
    }
  }
  for (uint32_t layer = 0; layer < spec.layers(); ++layer) {
    if (!seen[layer]) {
      return absl::InvalidArgumentError(
          absl::StrCat("layer_groups: layer ", layer, " is in no group"));
    }
  }
  return KvLayout::Create(dtype, std::move(layers), std::move(rotaries));
}

std::string Serialize(const v1::ModelSpec& spec) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  spec.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

}  // namespace

std::string ComputeFingerprint(const v1::ModelSpec& spec) {
  v1::ModelSpec without = spec;
  without.clear_fingerprint();
  Sha256 sha;
  sha.Update(kFingerprintDomain);
  sha.Update(Serialize(without));
  return sha.Finish();
}

absl::StatusOr<ModelInfo> ToModelInfo(const v1::ModelSpec& spec, const Limits& limits) {
  SEMSHARE_RETURN_IF_ERROR(CheckText("name", spec.name(), 256));
  SEMSHARE_RETURN_IF_ERROR(CheckText("weight_quantization", spec.weight_quantization(), 64));
  SEMSHARE_RETURN_IF_ERROR(CheckText("adapter", spec.adapter(), 256));
  SEMSHARE_RETURN_IF_ERROR(CheckText("attention_variant", spec.attention_variant(), 256));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("layers", spec.layers(), 1, kMaxLayers));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("vocab_size", spec.vocab_size(), 1, limits.max_vocab));
  SEMSHARE_RETURN_IF_ERROR(
      CheckRange("embedding_width", spec.embedding_width(), 1, limits.max_embedding_width));
  SEMSHARE_RETURN_IF_ERROR(CheckRange("max_positions", spec.max_positions(), 3, INT32_MAX));
  SEMSHARE_RETURN_IF_ERROR(CheckDigest("weights_digest", spec.weights_digest()));
  SEMSHARE_RETURN_IF_ERROR(CheckDigest("embedding_digest", spec.embedding_digest()));
  if (!spec.token_weights_digest().empty()) {
    SEMSHARE_RETURN_IF_ERROR(CheckDigest("token_weights_digest", spec.token_weights_digest()));
  }
  if (spec.signature_version() != kSignatureVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("signature_version: this broker has ", kSignatureVersion));
  }
  if (spec.fingerprint() != ComputeFingerprint(spec)) {
    return absl::FailedPreconditionError("fingerprint: is not the digest of the spec");
  }
  ModelInfo info;
  SEMSHARE_ASSIGN_OR_RETURN(info.layout, ToLayout(spec));
  info.name = spec.name();
  info.fingerprint = spec.fingerprint();
  info.vocab_size = spec.vocab_size();
  info.embedding_width = static_cast<int32_t>(spec.embedding_width());
  info.max_positions = spec.max_positions();
  info.embedding_digest = spec.embedding_digest();
  info.token_weights_digest = spec.token_weights_digest();
  info.projection_seed = spec.projection_seed();
  info.serialized = Serialize(spec);
  return info;
}

absl::StatusOr<ModelInfo> ParseModelInfo(std::string_view serialized, const Limits& limits) {
  v1::ModelSpec spec;
  if (!spec.ParseFromArray(serialized.data(), static_cast<int>(serialized.size()))) {
    return absl::DataLossError("stored model spec can't be read");
  }
  return ToModelInfo(spec, limits);
}

}  // namespace semshare
