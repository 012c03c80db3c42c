// Speed of realign on the CPU beside memcpy of the same bytes, in one run.
//
//   cmake --preset release && ninja -C build/release realign_bench
//   build/release/tests/bench/realign_bench [tokens heads width layers rounds]
//
// Defaults: 4096 8 128 8 15. Each line is one dtype, pairing and number of threads: bytes of KV
// per second (read once, written once) of rotated rows, of copied rows and of memcpy, each the
// median of interleaved rounds over all layers, and the ratios to memcpy. Expect 0.9 or more of
// memcpy for bfloat16 and float16 when the layers together exceed the last-level cache.
// The rotated values are verified against fp64 before anything is timed.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/numbers.h"
#include "kernels/angles.h"
#include "kernels/backend.h"
#include "kernels/base/status_macros.h"
#include "kernels/float_convert.h"

namespace semshare {
namespace {

struct Sizes {
  int64_t tokens = 4096;
  int32_t heads = 8;
  int32_t width = 128;
  int64_t layers = 8;
  int rounds = 15;
};

struct Case {
  Dtype dtype;
  RotaryPairing pairing;
  int threads;
};

struct Median {
  std::vector<double> seconds;
  double Get() {
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
  }
};

template <typename Fn>
double Seconds(const Fn& fn) {
  const auto start = std::chrono::steady_clock::now();
  fn();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

double Value(const std::byte* memory, int64_t element, Dtype dtype) {
  if (dtype == Dtype::kFloat32) return reinterpret_cast<const float*>(memory)[element];
  const uint16_t stored = reinterpret_cast<const uint16_t*>(memory)[element];
  return dtype == Dtype::kFloat16 ? FloatFromFloat16(stored) : FloatFromBfloat16(stored);
}

class RealignBench {
 public:
  RealignBench(const Sizes& sizes, const Case& which)
      : sizes_(sizes), which_(which), backend_(*NewCpuBackend({1, which.threads})) {
    layer_bytes_ = sizes.tokens * sizes.heads * sizes.width * DtypeBytes(which.dtype);
    source_ = *backend_->Allocate(MemoryKind::kDevice, layer_bytes_ * sizes.layers);
    destination_ = *backend_->Allocate(MemoryKind::kDevice, layer_bytes_ * sizes.layers);
    FillSource();
    rotary_.width = sizes.width;
    rotary_.pairing = which.pairing;
    for (int32_t j = 0; j < sizes.width / 2; ++j) {
      rotary_.inv_freq.push_back(std::pow(1e5, -2.0 * j / sizes.width));
    }
    std::vector<PositionPair> pairs;
    for (int64_t t = 0; t < sizes.tokens; ++t) {
      pairs.push_back({t, t + 100});
      rotated_.push_back({0, static_cast<int32_t>(t), static_cast<int32_t>(t), t});
      copied_.push_back({0, static_cast<int32_t>(t), -1, t});
    }
    angles_ = BuildAngleTable(rotary_, pairs);
  }

  void Run(const char* name) {
    Verify();
    Median rotate, copy, memory_copy;
    for (int round = 0; round < sizes_.rounds; ++round) {
      rotate.seconds.push_back(Seconds([this] { RealignLayers(rotated_); }));
      memory_copy.seconds.push_back(Seconds([this] { CopyLayers(); }));
      copy.seconds.push_back(Seconds([this] { RealignLayers(copied_); }));
    }
    const double bytes = static_cast<double>(layer_bytes_ * sizes_.layers);
    std::printf(
        "%-9s %-11s %d threads: rotated %6.2f GB/s (%.2f), copied %6.2f GB/s (%.2f), "
        "memcpy %6.2f GB/s\n",
        DtypeName(which_.dtype), name, which_.threads, bytes / rotate.Get() / 1e9,
        memory_copy.Get() / rotate.Get(), bytes / copy.Get() / 1e9, memory_copy.Get() / copy.Get(),
        bytes / memory_copy.Get() / 1e9);
  }

 private:
  void FillSource() {
    std::mt19937 random(7);
    std::uniform_real_distribution<float> uniform(-4, 4);
    std::vector<float> values(4099);  // a prime, so that rows differ
    for (float& value : values) value = uniform(random);
    const int64_t elements = source_.span().bytes / DtypeBytes(which_.dtype);
    auto* floats = reinterpret_cast<float*>(source_.span().address);
    auto* halves = reinterpret_cast<uint16_t*>(source_.span().address);
    for (int64_t i = 0; i < elements; ++i) {
      const float value = values[static_cast<size_t>(i) % values.size()];
      if (which_.dtype == Dtype::kFloat32) floats[i] = value;
      if (which_.dtype == Dtype::kFloat16) halves[i] = Float16FromFloat(value);
      if (which_.dtype == Dtype::kBfloat16) halves[i] = Bfloat16FromFloat(value);
    }
  }

  void RealignLayers(const std::vector<RealignRow>& rows) {
    for (int64_t layer = 0; layer < sizes_.layers; ++layer) {
      RealignArgs args;
      args.dtype = which_.dtype;
      args.heads = sizes_.heads;
      args.width = sizes_.width;
      args.rotary_width = sizes_.width;
      args.pairing = which_.pairing;
      args.source = source_.span();
      args.slab_offset = layer * layer_bytes_;
      args.streaming = true;
      args.rows = HostSpan(rows.data(), sizes_.tokens);
      args.row_count = sizes_.tokens;
      args.angles = HostSpan(angles_.data(), static_cast<int64_t>(angles_.size()));
      args.angle_rows = sizes_.tokens;
      args.destination = ContiguousView(destination_.span().Sub(args.slab_offset, layer_bytes_),
                                        sizes_.heads, sizes_.width, which_.dtype);
      Check(backend_->EnqueueRealign(lane_, args));
    }
  }

  void CopyLayers() {
    for (int64_t layer = 0; layer < sizes_.layers; ++layer) {
      Check(backend_->EnqueueCopy(lane_,
                                  destination_.span().Sub(layer * layer_bytes_, layer_bytes_),
                                  source_.span().Sub(layer * layer_bytes_, layer_bytes_)));
    }
  }

  // Compares some elements of every layer with fp64.
  void Verify() {
    RealignLayers(rotated_);
    const auto* source = reinterpret_cast<const std::byte*>(source_.span().address);
    const auto* result = reinterpret_cast<const std::byte*>(destination_.span().address);
    const double bound = which_.dtype == Dtype::kFloat32   ? 4e-6
                         : which_.dtype == Dtype::kFloat16 ? 4e-3
                                                           : 3e-2;
    for (int64_t row = 0; row < sizes_.tokens * sizes_.layers; row += 97) {
      const int64_t token = row % sizes_.tokens;
      for (int32_t j = 0; j < sizes_.width / 2; ++j) {
        const double frequency = rotary_.inv_freq[static_cast<size_t>(j)];
        const double phi = RotaryAngle(token + 100, frequency, rotary_.angle_precision) -
                           RotaryAngle(token, frequency, rotary_.angle_precision);
        const int64_t head = row * sizes_.heads + row % sizes_.heads;
        const int64_t first = head * sizes_.width + PairFirst(j, which_.pairing);
        const int64_t second = head * sizes_.width + PairSecond(j, sizes_.width, which_.pairing);
        const double x = Value(source, first, which_.dtype);
        const double y = Value(source, second, which_.dtype);
        const double error = std::max(
            std::abs(x * std::cos(phi) - y * std::sin(phi) - Value(result, first, which_.dtype)),
            std::abs(x * std::sin(phi) + y * std::cos(phi) - Value(result, second, which_.dtype)));
        if (!(error <= bound)) {
          std::fprintf(stderr, "row %lld pair %d: error %g\n", static_cast<long long>(row), j,
                       error);
          std::exit(1);
        }
      }
    }
  }

  const Sizes sizes_;
  const Case which_;
  std::unique_ptr<Backend> backend_;
  Lane lane_ = *backend_->AcquireLane(absl::ZeroDuration());
  int64_t layer_bytes_ = 0;
  Buffer source_, destination_;
  RotaryDescriptor rotary_;
  std::vector<RealignRow> rotated_, copied_;
  std::vector<float> angles_;
};

}  // namespace
}  // namespace semshare

int main(int argc, char** argv) {
  using semshare::Case;
  using semshare::Dtype;
  using semshare::RotaryPairing;
  semshare::Sizes sizes;
  int64_t* const wide[] = {&sizes.tokens, nullptr, nullptr, &sizes.layers, nullptr};
  int32_t* const narrow[] = {nullptr, &sizes.heads, &sizes.width, nullptr, &sizes.rounds};
  for (int i = 1; i < argc && i <= 5; ++i) {
    const bool parsed = wide[i - 1] != nullptr ? absl::SimpleAtoi(argv[i], wide[i - 1])
                                               : absl::SimpleAtoi(argv[i], narrow[i - 1]);
    if (!parsed) return 2;
  }
  for (const int threads : {1, 2}) {
    for (const Dtype dtype : {Dtype::kFloat32, Dtype::kFloat16, Dtype::kBfloat16}) {
      semshare::RealignBench(sizes, Case{dtype, RotaryPairing::kHalfSplit, threads})
          .Run("half-split");
      semshare::RealignBench(sizes, Case{dtype, RotaryPairing::kInterleaved, threads})
          .Run("interleaved");
    }
  }
  return 0;
}
