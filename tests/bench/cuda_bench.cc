// The CUDA backend against its limits. Verifies every operation against the CPU backend, then times
// it: many operations on one lane, wall time from the first to the last one's end, divided.
//
//   cuda_bench [DEVICE]     needs about 3 GiB of device memory and 3 GiB of memory
//
// What to expect (docs/gpu.md): realign of 5,000 tokens of Llama-3.1-8B's shape at 0.9 of a
// device-to-device copy of the same bytes, 0.8 into pages; a scan of 1,000,000 signatures of 256
// bits within 60 us a query, 10 us in batches of 64; nearest codes of 5,000 x 5,000 tokens within 2
// ms. Exits 2 without a device, 1 if an answer is wrong or a limit is missed.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "kernels/backend.h"
#include "kernels/base/status_macros.h"
#include "kernels/float_convert.h"

namespace semshare {
namespace {

constexpr int64_t kTokens = 5000;

void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

template <typename T>
T Must(absl::StatusOr<T> value) {
  Must(value.status());
  return *std::move(value);
}

// One backend with one lane, and what is done on it.
class Bench {
 public:
  explicit Bench(std::unique_ptr<Backend> backend)
      : backend_(std::move(backend)), lane_(Must(backend_->AcquireLane(absl::Seconds(1)))) {}

  Backend& backend() { return *backend_; }
  Lane& lane() { return lane_; }

  void Finish() { Must(Must(backend_->Record(lane_)).Wait()); }

  Buffer Device(int64_t bytes) { return Must(backend_->Allocate(MemoryKind::kDevice, bytes)); }

  template <typename T>
  Buffer Upload(const std::vector<T>& values) {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(T));
    Buffer buffer = Device(bytes);
    Must(backend_->EnqueueCopy(lane_, buffer.span(),
                               HostSpan(values.data(), static_cast<int64_t>(values.size()))));
    Finish();
    return buffer;
  }
  template <typename T>
  std::vector<T> Download(const MemorySpan& span) {
    std::vector<T> values(static_cast<size_t>(span.bytes) / sizeof(T));
    Must(backend_->EnqueueCopy(lane_, HostSpan(values.data(), static_cast<int64_t>(values.size())),
                               span));
    Finish();
    return values;
  }

  // Seconds of one `enqueue`, the best of five rounds of `count`.
  double Time(int count, const std::function<void()>& enqueue) {
    double best = 1e9;
    for (int round = 0; round < 6; ++round) {  // the first one warms up
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < count; ++i) enqueue();
      Finish();
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
      if (round > 0) best = std::min(best, time.count() / count);
    }
    return best;
  }

 private:
  const std::unique_ptr<Backend> backend_;
  Lane lane_;
};

// Collects whether every limit was kept.
class Report {
 public:
  void Limit(const char* what, double value, const char* unit, double limit, bool at_least) {
    const bool kept = at_least ? value >= limit : value <= limit;
    std::printf("%-58s %10.3f %-5s (limit %s %g)%s\n", what, value, unit,
                at_least ? ">=" : "<=", limit, kept ? "" : "  MISSED");
    failed_ = failed_ || !kept;
  }
  void Verified(const char* what, bool right) {
    std::printf("%-58s %s\n", what, right ? "verified" : "WRONG");
    failed_ = failed_ || !right;
  }
  bool failed() const { return failed_; }

 private:
  bool failed_ = false;
};

// Llama-3.1-8B: 32 layers of K and V, 8 heads of 128, bfloat16, in chunks of 64 tokens.
class LlamaKv {
 public:
  static constexpr int32_t kHeads = 8, kWidth = 128;
  static constexpr int64_t kPlanes = 64, kChunkTokens = 64;
  static constexpr int64_t kRowBytes = kHeads * kWidth * 2;
  static constexpr int64_t kSlabBytes = kChunkTokens * kRowBytes;
  static constexpr int64_t kChunkBytes = kPlanes * kSlabBytes;
  static constexpr int64_t kChunks = (kTokens + kChunkTokens - 1) / kChunkTokens;
  static constexpr int64_t kBytes = kPlanes * kTokens * kRowBytes;

  LlamaKv() : source_(static_cast<size_t>(kChunks * kChunkBytes / 2)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> pattern(1 << 20);
    for (uint16_t& value : pattern) value = Bfloat16FromFloat(normal(random));
    for (size_t i = 0; i < source_.size(); ++i) {
      source_[i] = pattern[(i * 7 + i / 4099) % pattern.size()];
    }
    std::uniform_real_distribution<float> turn(-3, 3);
    for (int64_t row = 0; row < kTokens; ++row) {
      float phi[kWidth / 2];
      for (float& angle : phi) angle = turn(random);
      for (const float angle : phi) angles_.push_back(std::cos(angle));
      for (const float angle : phi) angles_.push_back(std::sin(angle));
      rows_.push_back({row / kChunkTokens * kChunkBytes, static_cast<int32_t>(row % kChunkTokens),
                       static_cast<int32_t>(row), row});
    }
  }

  // Blocks of 16 tokens in another order, as a paged cache has them.
  void Page() {
    paged_ = true;
    std::vector<int64_t> blocks((kTokens + 15) / 16);
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int64_t>(i);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(2));
    for (int64_t row = 0; row < kTokens; ++row) {
      rows_[static_cast<size_t>(row)].slot = blocks[static_cast<size_t>(row / 16)] * 16 + row % 16;
    }
  }

  static int64_t PlaneBytes() { return (kTokens + 15) / 16 * 16 * kRowBytes; }

  std::vector<RealignArgs> Batch(MemorySpan source, MemorySpan rows, MemorySpan angles,
                                 MemorySpan destination) const {
    std::vector<RealignArgs> batch;
    for (int64_t plane = 0; plane < kPlanes; ++plane) {
      RealignArgs args;
      args.dtype = Dtype::kBfloat16;
      args.heads = kHeads;
      args.width = kWidth;
      args.rotary_width = plane % 2 == 0 ? kWidth : 0;
      args.source = source;
      args.slab_offset = plane * kSlabBytes;
      args.rows = rows;
      args.row_count = kTokens;
      args.angles = angles;
      args.angle_rows = kTokens;
      args.destination = ContiguousView(destination.Sub(plane * PlaneBytes(), PlaneBytes()), kHeads,
                                        kWidth, args.dtype);
      if (paged_) {
        args.destination.block_tokens = 16;
        args.destination.block_stride = 16 * kRowBytes;
      }
      batch.push_back(args);
    }
    return batch;
  }

  std::vector<uint16_t> source_;
  std::vector<RealignRow> rows_;
  std::vector<float> angles_;
  bool paged_ = false;
};

template <typename T>
MemorySpan SpanOf(const std::vector<T>& values) {
  return HostSpan(values.data(), static_cast<int64_t>(values.size()));
}

// The planes of layers 0 and 31 as the CPU makes them: V to the bit, K to one unit in the last
// place.
bool RealignIsRight(Bench& cpu, const LlamaKv& kv, const std::vector<uint16_t>& actual) {
  std::vector<uint16_t> expected(actual.size());
  const std::vector<RealignArgs> batch =
      kv.Batch(SpanOf(kv.source_), SpanOf(kv.rows_), SpanOf(kv.angles_), SpanOf(expected));
  constexpr int64_t kRowElements = LlamaKv::kRowBytes / 2;
  for (const int64_t plane : {0, 1, 62, 63}) {
    Must(cpu.backend().EnqueueRealign(cpu.lane(), batch[static_cast<size_t>(plane)]));
    for (const RealignRow& row : kv.rows_) {
      const int64_t first = plane * LlamaKv::PlaneBytes() / 2 + row.slot * kRowElements;
      for (int64_t i = first; i < first + kRowElements; ++i) {
        const uint16_t own = actual[static_cast<size_t>(i)];
        const uint16_t other = expected[static_cast<size_t>(i)];
        if (own == other) continue;
        const float a = FloatFromBfloat16(own);
        const float b = FloatFromBfloat16(other);
        // Not "> bound": a NaN is never close.
        const bool close = std::abs(a - b) <= 0x1p-7F * std::abs(b) + 1e-6F;
        if (plane % 2 != 0 || !close) return false;
      }
    }
  }
  return true;
}

void BenchRealign(Bench& gpu, Bench& cpu, Report& report) {
  LlamaKv kv;
  const Buffer source = gpu.Upload(kv.source_);
  const Buffer angles = gpu.Upload(kv.angles_);
  const Buffer destination = gpu.Device(LlamaKv::kPlanes * LlamaKv::PlaneBytes());
  const double copy_s = gpu.Time(10, [&] {
    Must(gpu.backend().EnqueueCopy(gpu.lane(), destination.span().Sub(0, LlamaKv::kBytes),
                                   source.span().Sub(0, LlamaKv::kBytes)));
  });
  const double bytes = LlamaKv::kBytes;
  std::printf("device-to-device copy of %.0f MB: %.3f ms, %.0f GB/s read and written\n",
              bytes / 1e6, copy_s * 1e3, 2 * bytes / copy_s / 1e9);
  for (const bool paged : {false, true}) {
    if (paged) kv.Page();
    const Buffer rows = gpu.Upload(kv.rows_);
    const auto on_device = kv.Batch(source.span(), rows.span(), angles.span(), destination.span());
    Must(gpu.backend().EnqueueRealign(gpu.lane(), on_device));
    report.Verified(paged ? "realign, paged" : "realign, contiguous",
                    RealignIsRight(cpu, kv, gpu.Download<uint16_t>(destination.span())));
    const double device_s =
        gpu.Time(10, [&] { Must(gpu.backend().EnqueueRealign(gpu.lane(), on_device)); });
    const auto from_host =
        kv.Batch(source.span(), SpanOf(kv.rows_), SpanOf(kv.angles_), destination.span());
    const double host_s =
        gpu.Time(10, [&] { Must(gpu.backend().EnqueueRealign(gpu.lane(), from_host)); });
    std::printf("  %.3f ms, %.0f GB/s; tables from the host: %.3f ms\n", device_s * 1e3,
                2 * bytes / device_s / 1e9, host_s * 1e3);
    report.Limit(paged ? "  paged realign / copy" : "  contiguous realign / copy",
                 copy_s / device_s, "", paged ? 0.8 : 0.9, true);
  }
}

std::vector<uint64_t> RandomWords(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint64_t> words(static_cast<size_t>(count));
  for (uint64_t& word : words) word = random();
  return words;
}

void BenchTopK(Bench& gpu, Bench& cpu, Report& report) {
  constexpr int64_t kCodes = 1000000, kQueries = 64;
  constexpr int32_t kWords = 4, kNearest = 8;
  const std::vector<uint64_t> codes = RandomWords(kCodes * kWords, 3);
  const std::vector<uint64_t> live = RandomWords((kCodes + 63) / 64, 4);
  const std::vector<uint64_t> queries = RandomWords(kQueries * kWords, 5);
  std::vector<int64_t> indices(kQueries * kNearest);
  std::vector<int32_t> distances(kQueries * kNearest);
  HammingTopKArgs args{SpanOf(codes), kCodes,   kWords,          SpanOf(live),     SpanOf(queries),
                       kQueries,      kNearest, SpanOf(indices), SpanOf(distances)};
  Must(cpu.backend().EnqueueHammingTopK(cpu.lane(), args));
  const Buffer device_codes = gpu.Upload(codes), device_live = gpu.Upload(live);
  const Buffer device_queries = gpu.Upload(queries), device_indices = gpu.Upload(indices);
  const Buffer device_distances = gpu.Upload(distances);
  args.codes = device_codes.span();
  args.live = device_live.span();
  args.queries = device_queries.span();
  args.indices = device_indices.span();
  args.distances = device_distances.span();
  const auto enqueue = [&] { Must(gpu.backend().EnqueueHammingTopK(gpu.lane(), args)); };
  enqueue();
  gpu.Finish();
  report.Verified("Hamming top 8 of 1,000,000: recall 1 at every rank",
                  gpu.Download<int64_t>(device_indices.span()) == indices &&
                      gpu.Download<int32_t>(device_distances.span()) == distances);
  const double batch_s = gpu.Time(20, enqueue) / kQueries;
  args.query_count = 1;
  const double single_s = gpu.Time(50, enqueue);
  const double megabytes = kCodes * kWords * 8 / 1e6;
  std::printf("  one query reads %.0f MB: %.0f GB/s\n", megabytes, megabytes / single_s / 1e3);
  report.Limit("  one query", single_s * 1e6, "us", 60, false);
  report.Limit("  a query of a batch of 64", batch_s * 1e6, "us", 10, false);
}

// Bits in which two lists of codes differ.
int64_t DifferentBits(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  int64_t bits = 0;
  for (size_t i = 0; i < a.size(); ++i) bits += __builtin_popcountll(a[i] ^ b[i]);
  return bits;
}

struct TokenSpace {
  static constexpr int64_t kVocab = 8192;
  static constexpr int32_t kWidth = 4096, kBits = 256, kWords = kBits / 64;

  TokenSpace() {
    std::mt19937 random(6);
    std::normal_distribution<float> normal;
    table.resize(static_cast<size_t>(kVocab) * kWidth);
    matrix.resize(static_cast<size_t>(kWidth) * kBits);
    for (float& value : table) value = normal(random);
    for (float& value : matrix) value = normal(random);
    for (int64_t i = 0; i < kTokens; ++i) {
      ids.push_back(static_cast<uint32_t>(random() % kVocab));
      positions.push_back(i);
      windows.insert(windows.end(), {0, kTokens});
    }
  }

  std::vector<float> table, matrix;
  std::vector<uint32_t> ids;
  std::vector<int64_t> positions, windows;
};

void BenchNearest(Bench& gpu, Bench& cpu, Report& report) {
  const TokenSpace space;
  std::vector<uint64_t> expected(static_cast<size_t>(kTokens) * TokenSpace::kWords);
  TokenCodesArgs tokens{SpanOf(space.table),
                        TokenSpace::kVocab,
                        TokenSpace::kWidth,
                        SpanOf(space.matrix),
                        TokenSpace::kBits,
                        SpanOf(space.ids),
                        SpanOf(space.positions),
                        kTokens,
                        1e4,
                        SpanOf(expected)};
  Must(cpu.backend().EnqueueTokenCodes(cpu.lane(), tokens));
  const Buffer table = gpu.Upload(space.table), matrix = gpu.Upload(space.matrix);
  const Buffer ids = gpu.Upload(space.ids), positions = gpu.Upload(space.positions);
  const Buffer windows = gpu.Upload(space.windows), codes = gpu.Upload(expected);
  tokens.table = table.span();
  tokens.matrix = matrix.span();
  tokens.ids = ids.span();
  tokens.positions = positions.span();
  tokens.codes = codes.span();
  const auto make_codes = [&] { Must(gpu.backend().EnqueueTokenCodes(gpu.lane(), tokens)); };
  make_codes();
  const std::vector<uint64_t> source = gpu.Download<uint64_t>(codes.span());
  // A dot product next to zero may fall to either side.
  report.Verified("token codes of 5,000 tokens, 4096 wide (1e-4 of the bits)",
                  DifferentBits(source, expected) <= kTokens * TokenSpace::kBits / 10000);
  const std::vector<uint64_t> targets =
      RandomWords(kTokens * TokenSpace::kWords, 7);  // as far from each other as codes get
  std::vector<int64_t> indices(kTokens);
  std::vector<int32_t> distances(kTokens);
  NearestCodeArgs nearest{
      SpanOf(targets),       kTokens,         SpanOf(source),   kTokens, TokenSpace::kWords,
      SpanOf(space.windows), SpanOf(indices), SpanOf(distances)};
  Must(cpu.backend().EnqueueNearestCode(cpu.lane(), nearest));
  const Buffer queries = gpu.Upload(targets), found = gpu.Upload(indices);
  const Buffer far = gpu.Upload(distances);
  nearest.queries = queries.span();
  nearest.codes = codes.span();
  nearest.windows = windows.span();
  nearest.indices = found.span();
  nearest.distances = far.span();
  const auto find = [&] { Must(gpu.backend().EnqueueNearestCode(gpu.lane(), nearest)); };
  find();
  gpu.Finish();
  report.Verified("nearest of 5,000 x 5,000 codes",
                  gpu.Download<int64_t>(found.span()) == indices &&
                      gpu.Download<int32_t>(far.span()) == distances);
  const double codes_s = gpu.Time(10, make_codes);
  const double find_s = gpu.Time(50, find);
  std::printf("  codes of 5,000 tokens %.3f ms, nearest codes %.3f ms\n", codes_s * 1e3,
              find_s * 1e3);
  report.Limit("  codes of the target's tokens, and their nearest", (codes_s + find_s) * 1e3, "ms",
               2, false);
}

int Main(int argc, char** argv) {
  CudaBackendOptions options;
  options.lanes = 1;
  if (argc > 1) options.device = std::atoi(argv[1]);
  absl::StatusOr<std::unique_ptr<Backend>> backend = NewCudaBackend(options);
  if (!backend.ok()) {
    std::fprintf(stderr, "cuda_bench needs a GPU: %s\n", backend.status().ToString().c_str());
    return 2;
  }
  std::printf("%s\n", (*backend)->info().device.c_str());
  Bench gpu(*std::move(backend));
  Bench cpu(Must(NewCpuBackend({1, 4})));
  Report report;
  BenchRealign(gpu, cpu, report);
  BenchTopK(gpu, cpu, report);
  BenchNearest(gpu, cpu, report);
  return report.failed() ? 1 : 0;
}

}  // namespace
}  // namespace semshare

int main(int argc, char** argv) { return semshare::Main(argc, argv); }
