#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "kernels/rotary.h"
#include "server/model.h"

namespace semshare {
namespace {

// A row's tolerated error, relative to its largest element's scale (norm). The engine rounds its
// own rows to the dtype at both positions; a wrong convention is off by its whole length.
double Tolerance(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return 1e-4;
    case Dtype::kFloat16:
      return 1e-2;
    case Dtype::kBfloat16:
      return 5e-2;
  }
  return 0;
}

float HalfToFloat(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  const float sign = (half & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

double ElementAt(const char* row, int64_t index, Dtype dtype) {
  if (dtype == Dtype::kFloat32) {
    float value;
    std::memcpy(&value, row + index * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, row + index * 2, 2);
  if (dtype == Dtype::kFloat16) return HalfToFloat(bits);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

std::vector<double> HeadRow(const char* row, int head, const PlaneLayout& plane, Dtype dtype) {
  std::vector<double> values(plane.width);
  for (int e = 0; e < plane.width; ++e) {
    values[e] = ElementAt(row, static_cast<int64_t>(head) * plane.width + e, dtype);
  }
  return values;
}

// Turns a head's row from one position to another: the definition, in fp64.
void Rotate(const RotaryDescriptor& rotary, int64_t source, int64_t target,
            std::vector<double>* row) {
  for (int j = 0; j < rotary.width / 2; ++j) {
    const double f = rotary.inv_freq[j];
    const double phi = RotaryAngle(target, f, rotary.angle_precision) -
                       RotaryAngle(source, f, rotary.angle_precision);
    double& x = (*row)[rotary.begin + PairFirst(j, rotary.pairing)];
    double& y = (*row)[rotary.begin + PairSecond(j, rotary.width, rotary.pairing)];
    const double turned_x = x * std::cos(phi) - y * std::sin(phi);
    y = x * std::sin(phi) + y * std::cos(phi);
    x = turned_x;
  }
}

double RelativeError(const std::vector<double>& expected, const std::vector<double>& actual) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += (expected[i] - actual[i]) * (expected[i] - actual[i]);
    norm += actual[i] * actual[i];
  }
  if (norm == 0) return difference == 0 ? 0 : INFINITY;
  return std::sqrt(difference / norm);
}

// Visits (layer, plane index, byte offset of the plane's row within a sample).
template <typename Visit>
absl::Status ForEachPlane(const KvLayout& layout, int first_layer, Visit visit) {
  int64_t offset = 0;
  for (int layer = 0; layer < layout.layers(); ++layer) {
    for (const PlaneLayout& plane : layout.planes(layer)) {
      if (layer >= first_layer) SEMSHARE_RETURN_IF_ERROR(visit(layer, plane, offset));
      offset += plane.row_bytes;
    }
  }
  return absl::OkStatus();
}

// Largest relative row error of `moved` (at its position) against `base` realigned to it.
absl::StatusOr<double> SampleError(const ModelInfo& info, const ProbeSample& base,
                                   const ProbeSample& moved, int first_layer) {
  const KvLayout& layout = *info.layout;
  double largest = 0;
  auto visit = [&](int layer, const PlaneLayout& plane, int64_t offset) -> absl::Status {
    for (int head = 0; head < plane.heads; ++head) {
      std::vector<double> expected =
          HeadRow(base.rows.data() + offset, head, plane, layout.dtype());
      if (plane.rotary >= 0) {
        Rotate(layout.rotaries()[plane.rotary], base.position, moved.position, &expected);
      }
      const std::vector<double> actual =
          HeadRow(moved.rows.data() + offset, head, plane, layout.dtype());
      const double error = RelativeError(expected, actual);
      // Written so that NaN fails.
      if (!(error <= Tolerance(layout.dtype()))) {
        return absl::FailedPreconditionError(
            absl::StrCat("probe disagrees with the rotary descriptor: layer ", layer, ", plane ",
                         plane.name, ", head ", head, ", positions ", base.position, " and ",
                         moved.position, ": relative row error ", error));
      }
      largest = std::max(largest, error);
    }
    return absl::OkStatus();
  };
  SEMSHARE_RETURN_IF_ERROR(ForEachPlane(layout, first_layer, visit));
  return largest;
}

absl::Status CheckSamples(const ModelInfo& info, const std::vector<ProbeSample>& samples) {
  for (const ProbeSample& sample : samples) {
    if (static_cast<int64_t>(sample.rows.size()) != info.layout->token_bytes()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "probe.rows: expected ", info.layout->token_bytes(), " bytes, got ", sample.rows.size()));
    }
    if (sample.token_id >= info.vocab_size) {
      return absl::InvalidArgumentError("probe.token_id is beyond the vocabulary");
    }
    if (sample.position >= info.max_positions) {
      return absl::InvalidArgumentError("probe.position is beyond max_positions");
    }
    const int64_t count = info.layout->token_bytes() / DtypeBytes(info.layout->dtype());
    for (int64_t i = 0; i < count; ++i) {
      if (!std::isfinite(ElementAt(sample.rows.data(), i, info.layout->dtype()))) {
        return absl::InvalidArgumentError("probe.rows holds a value that is not finite");
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<double> CheckProbe(const ModelInfo& info, const std::vector<ProbeSample>& samples) {
  SEMSHARE_RETURN_IF_ERROR(CheckSamples(info, samples));
  std::map<uint32_t, std::map<int64_t, const ProbeSample*>> by_token;
  for (const ProbeSample& sample : samples) by_token[sample.token_id][sample.position] = &sample;
  int complete = 0;
  double largest = 0;
  for (const auto& [token, positions] : by_token) {
    const bool all = positions.contains(0) && positions.contains(1) &&
                     positions.contains(info.max_positions - 1);
    complete += all ? 1 : 0;
    const ProbeSample& base = *positions.begin()->second;
    for (const auto& [position, sample] : positions) {
      SEMSHARE_ASSIGN_OR_RETURN(const double error, SampleError(info, base, *sample, 0));
      largest = std::max(largest, error);
    }
  }
  if (complete < kProbeTokens) {
    return absl::InvalidArgumentError(absl::StrCat("probe: need ", kProbeTokens,
                                                   " tokens, each at positions 0, 1 and ",
                                                   info.max_positions - 1, "; got ", complete));
  }
  return largest;
}

absl::StatusOr<double> CompareProbes(const ModelInfo& info, const std::vector<ProbeSample>& stored,
                                     const std::vector<ProbeSample>& fresh) {
  SEMSHARE_RETURN_IF_ERROR(CheckSamples(info, fresh));
  double largest = 0;
  int compared = 0;
  for (const ProbeSample& a : stored) {
    for (const ProbeSample& b : fresh) {
      if (a.token_id != b.token_id || a.position != b.position) continue;
      ++compared;
      absl::StatusOr<double> error = SampleError(info, a, b, info.layout->layers() - 1);
      if (!error.ok()) {
        return absl::FailedPreconditionError(
            absl::StrCat("probe disagrees with the one stored for this fingerprint: ",
                         error.status().ToString()));
      }
      largest = std::max(largest, *error);
    }
  }
  if (compared == 0)
    return absl::InvalidArgumentError("probe shares no sample with the stored one");
  return largest;
}

}  // namespace semshare
