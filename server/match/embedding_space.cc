#include "server/match/embedding_space.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"
#include "server/match/run_on_lane.h"

namespace semshare {
namespace {

// Standard normal values, row-major [width][bits]: Box-Muller over std::mt19937_64, whose output
// the standard fixes, because std::normal_distribution differs between libraries. The signature
// version stands for this generator.
std::vector<float> GaussianMatrix(uint64_t seed, int64_t count) {
  constexpr double kUnit = 0x1p-53;
  std::mt19937_64 random(seed);
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; i += 2) {
    const double u = static_cast<double>((random() >> 11) + 1) * kUnit;  // in (0, 1]
    const double v = static_cast<double>(random() >> 11) * kUnit;        // in [0, 1)
    const double radius = std::sqrt(-2.0 * std::log(u));
    const double angle = 2.0 * std::numbers::pi * v;
    values[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < count) values[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return values;
}

// The projection of the table's mean row: taking it from every projected row removes the mean.
std::vector<float> MeanBias(const EmbeddingSpec& spec, absl::Span<const float> table,
                            const std::vector<float>& matrix) {
  std::vector<double> mean(spec.width, 0.0);
  for (int64_t row = 0; row < spec.vocab; ++row) {
    for (int32_t j = 0; j < spec.width; ++j) mean[j] += table[row * spec.width + j];
  }
  std::vector<double> bias(kSignatureBits, 0.0);
  for (int32_t j = 0; j < spec.width; ++j) {
    const double value = mean[j] / static_cast<double>(spec.vocab);
    for (int b = 0; b < kSignatureBits; ++b) {
      bias[b] += value * matrix[static_cast<int64_t>(j) * kSignatureBits + b];
    }
  }
  return std::vector<float>(bias.begin(), bias.end());
}

absl::Status CheckSpec(const EmbeddingSpec& spec, absl::Span<const float> table,
                       absl::Span<const float> weights) {
  if (spec.vocab <= 0 || spec.width <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("embedding table of ", spec.vocab, " x ", spec.width));
  }
  if (static_cast<int64_t>(table.size()) != spec.vocab * spec.width) {
    return absl::InvalidArgumentError(absl::StrCat("embedding table has ", table.size(),
                                                   " values, not ", spec.vocab, " x ", spec.width));
  }
  if (static_cast<int64_t>(weights.size()) != spec.vocab) {
    return absl::InvalidArgumentError(
        absl::StrCat(weights.size(), " token weights for ", spec.vocab, " tokens"));
  }
  const auto bad = [](float value) { return !std::isfinite(value); };
  if (std::any_of(table.begin(), table.end(), bad)) {
    return absl::InvalidArgumentError("embedding table has a value that is not finite");
  }
  if (std::any_of(weights.begin(), weights.end(),
                  [](float weight) { return !std::isfinite(weight) || weight < 0; })) {
    return absl::InvalidArgumentError("token weights must be finite and >= 0");
  }
  return absl::OkStatus();
}

absl::StatusOr<Buffer> AllocateFloats(Backend& backend, int64_t count) {
  return backend.Allocate(MemoryKind::kDevice, count * static_cast<int64_t>(sizeof(float)));
}

class EmbeddingSpaceImpl : public EmbeddingSpace {
 public:
  EmbeddingSpaceImpl(const EmbeddingSpec& spec, Backend* backend)
      : spec_(spec), backend_(*backend) {}

  absl::Status Init(absl::Span<const float> table, absl::Span<const float> weights);

  absl::StatusOr<std::vector<uint64_t>> Signatures(absl::Span<const uint32_t> ids) override;
  absl::StatusOr<std::vector<uint64_t>> TokenCodes(absl::Span<const uint32_t> ids,
                                                   absl::Span<const int64_t> positions) override;
  absl::StatusOr<Nearest> NearestCodes(absl::Span<const uint64_t> queries,
                                       absl::Span<const uint64_t> codes,
                                       absl::Span<const int64_t> windows) override;

 private:
  absl::Status CheckIds(absl::Span<const uint32_t> ids) const;

  const EmbeddingSpec spec_;
  Backend& backend_;
  // Written by Init only. The table stays for token codes, which rotate before they project.
  Buffer table_;      // float[vocab][width]
  Buffer matrix_;     // float[width][kSignatureBits]
  Buffer weights_;    // float[vocab]
  Buffer projected_;  // float[vocab][kSignatureBits]
};

absl::Status EmbeddingSpaceImpl::Init(absl::Span<const float> table,
                                      absl::Span<const float> weights) {
  const std::vector<float> matrix =
      GaussianMatrix(spec_.projection_seed, int64_t{spec_.width} * kSignatureBits);
  const std::vector<float> bias = MeanBias(spec_, table, matrix);
  SEMSHARE_ASSIGN_OR_RETURN(table_, AllocateFloats(backend_, static_cast<int64_t>(table.size())));
  SEMSHARE_ASSIGN_OR_RETURN(matrix_, AllocateFloats(backend_, static_cast<int64_t>(matrix.size())));
  SEMSHARE_ASSIGN_OR_RETURN(weights_,
                            AllocateFloats(backend_, static_cast<int64_t>(weights.size())));
  SEMSHARE_ASSIGN_OR_RETURN(projected_, AllocateFloats(backend_, spec_.vocab * kSignatureBits));
  const auto upload = [&](Lane& lane, const Buffer& to, const float* from, size_t count) {
    return backend_.EnqueueCopy(lane, to.span(), HostSpan(from, static_cast<int64_t>(count)));
  };
  return RunOnLane(backend_, [&](Lane& lane) -> absl::Status {
    SEMSHARE_RETURN_IF_ERROR(upload(lane, table_, table.data(), table.size()));
    SEMSHARE_RETURN_IF_ERROR(upload(lane, matrix_, matrix.data(), matrix.size()));
    SEMSHARE_RETURN_IF_ERROR(upload(lane, weights_, weights.data(), weights.size()));
    ProjectArgs args;
    args.a = table_.span();
    args.b = matrix_.span();
    args.bias = HostSpan(bias.data(), kSignatureBits);
    args.c = projected_.span();
    args.m = spec_.vocab;
    args.n = kSignatureBits;
    args.k = spec_.width;
    return backend_.EnqueueProject(lane, args);
  });
}

absl::Status EmbeddingSpaceImpl::CheckIds(absl::Span<const uint32_t> ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= spec_.vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", i, " is outside the vocabulary of ", spec_.vocab));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint64_t>> EmbeddingSpaceImpl::Signatures(
    absl::Span<const uint32_t> ids) {
  if (ids.empty()) return absl::InvalidArgumentError("signatures of an empty prompt");
  SEMSHARE_RETURN_IF_ERROR(CheckIds(ids));
  const auto count = static_cast<int64_t>(ids.size());
  std::vector<int64_t> windows = {0, count};
  for (int64_t begin = 0; begin < count; begin += kSignatureWindowTokens) {
    windows.push_back(begin);
    windows.push_back(std::min(count, begin + kSignatureWindowTokens));
  }
  const auto window_count = static_cast<int64_t>(windows.size() / 2);
  std::vector<uint64_t> codes(window_count * kSignatureWords);
  SignatureArgs args;
  args.projected = projected_.span();
  args.weights = weights_.span();
  args.vocab = spec_.vocab;
  args.bits = kSignatureBits;
  args.ids = HostSpan(ids.data(), count);
  args.count = count;
  args.windows = HostSpan(windows.data(), static_cast<int64_t>(windows.size()));
  args.window_count = window_count;
  args.codes = HostSpan(codes.data(), static_cast<int64_t>(codes.size()));
  SEMSHARE_RETURN_IF_ERROR(
      RunOnLane(backend_, [&](Lane& lane) { return backend_.EnqueueSignature(lane, args); }));
  return codes;
}

absl::StatusOr<std::vector<uint64_t>> EmbeddingSpaceImpl::TokenCodes(
    absl::Span<const uint32_t> ids, absl::Span<const int64_t> positions) {
  if (ids.size() != positions.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(ids.size(), " token ids with ", positions.size(), " positions"));
  }
  if (ids.empty()) return std::vector<uint64_t>();
  SEMSHARE_RETURN_IF_ERROR(CheckIds(ids));
  const auto count = static_cast<int64_t>(ids.size());
  std::vector<uint64_t> codes(count * kSignatureWords);
  TokenCodesArgs args;
  args.table = table_.span();
  args.vocab = spec_.vocab;
  args.width = spec_.width;
  args.matrix = matrix_.span();
  args.bits = kSignatureBits;
  args.ids = HostSpan(ids.data(), count);
  args.positions = HostSpan(positions.data(), count);
  args.count = count;
  args.codes = HostSpan(codes.data(), static_cast<int64_t>(codes.size()));
  SEMSHARE_RETURN_IF_ERROR(
      RunOnLane(backend_, [&](Lane& lane) { return backend_.EnqueueTokenCodes(lane, args); }));
  return codes;
}

absl::StatusOr<EmbeddingSpace::Nearest> EmbeddingSpaceImpl::NearestCodes(
    absl::Span<const uint64_t> queries, absl::Span<const uint64_t> codes,
    absl::Span<const int64_t> windows) {
  if (queries.size() % kSignatureWords != 0 || codes.size() % kSignatureWords != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("codes must be of ", kSignatureWords, " words each"));
  }
  const auto query_count = static_cast<int64_t>(queries.size() / kSignatureWords);
  if (static_cast<int64_t>(windows.size()) != 2 * query_count) {
    return absl::InvalidArgumentError(
        absl::StrCat(windows.size(), " window bounds for ", query_count, " queries"));
  }
  Nearest nearest;
  nearest.indices.assign(query_count, -1);
  nearest.distances.assign(query_count, kSignatureBits);
  if (query_count == 0 || codes.empty()) return nearest;
  NearestCodeArgs args;
  args.queries = HostSpan(queries.data(), static_cast<int64_t>(queries.size()));
  args.query_count = query_count;
  args.codes = HostSpan(codes.data(), static_cast<int64_t>(codes.size()));
  args.count = static_cast<int64_t>(codes.size() / kSignatureWords);
  args.words = kSignatureWords;
  args.windows = HostSpan(windows.data(), static_cast<int64_t>(windows.size()));
  args.indices = HostSpan(nearest.indices.data(), query_count);
  args.distances = HostSpan(nearest.distances.data(), query_count);
  SEMSHARE_RETURN_IF_ERROR(
      RunOnLane(backend_, [&](Lane& lane) { return backend_.EnqueueNearestCode(lane, args); }));
  return nearest;
}

}  // namespace

std::vector<float> DefaultTokenWeights(int64_t vocab) {
  constexpr double kSmoothing = 1e-3;
  double harmonic = 0;
  for (int64_t rank = vocab; rank >= 1; --rank) harmonic += 1.0 / static_cast<double>(rank);
  std::vector<float> weights(std::max<int64_t>(0, vocab));
  for (int64_t id = 0; id < vocab; ++id) {
    const double p = 1.0 / (static_cast<double>(id + 1) * harmonic);
    weights[id] = static_cast<float>(kSmoothing / (kSmoothing + p));
  }
  return weights;
}

absl::StatusOr<std::unique_ptr<EmbeddingSpace>> EmbeddingSpace::Create(
    const EmbeddingSpec& spec, absl::Span<const float> table, absl::Span<const float> weights,
    Backend* backend) {
  SEMSHARE_CHECK(backend != nullptr);
  SEMSHARE_RETURN_IF_ERROR(CheckSpec(spec, table, weights));
  auto space = std::make_unique<EmbeddingSpaceImpl>(spec, backend);
  SEMSHARE_RETURN_IF_ERROR(space->Init(table, weights));
  return space;
}

double CodeSimilarity(int32_t distance, int bits) {
  return std::cos(std::numbers::pi * static_cast<double>(distance) / static_cast<double>(bits));
}

}  // namespace semshare
