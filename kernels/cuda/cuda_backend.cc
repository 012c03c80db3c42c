// The CUDA backend: operations become launches on the lane's stream.
//
// Tables and results in host memory go through the lane's staging (staged_tables.h); operands must
// be memory that the device reaches, which the registry of spans knows, as it knows all device
// memory: an address from elsewhere is an error and not a fault that takes the context along.
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/base/status_macros.h"
#include "kernels/checks.h"
#include "kernels/cuda/checksum.h"
#include "kernels/cuda/copy.h"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda_lane.h"
#include "kernels/cuda/cuda_raii.h"
#include "kernels/cuda/event_pool.h"
#include "kernels/cuda/hamming_topk.cuh"
#include "kernels/cuda/nearest_code.cuh"
#include "kernels/cuda/peer_memory.h"
#include "kernels/cuda/project.cuh"
#include "kernels/cuda/realign.cuh"
#include "kernels/cuda/signature.cuh"
#include "kernels/cuda/staged_tables.h"
#include "kernels/cuda/token_codes.cuh"
#include "kernels/lane_pool.h"
#include "kernels/operands.h"
#include "kernels/peer_memory.h"
#include "kernels/span_registry.h"

namespace semshare {
namespace {

constexpr int kEventsPerLane = 16;  // made at start

struct DeviceFacts {
  std::string name;
  int multiprocessors = 0;
  std::array<char, 16> uuid = {};
  bool shares_events = false;  // with other processes
};

absl::Status CheckAttribute(int device, cudaDeviceAttr attribute, const char* what) {
  int value = 0;
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(&value, attribute, device));
  if (value != 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("CUDA device ", device, " has no ", what));
}

absl::StatusOr<DeviceFacts> UseDevice(int device) {
  int count = 0;
  SEMSHARE_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceCount(&count), "no CUDA device"));
  if (device >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("no CUDA device ", device, ": the machine has ", count));
  }
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaSetDevice(device));
  cudaDeviceProp properties;
  SEMSHARE_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, device));
  if (properties.major < 8) {
    return absl::FailedPreconditionError(
        absl::StrCat("CUDA device ", device, " (", properties.name, ") has compute capability ",
                     properties.major, ".", properties.minor, ": the kernels need 8.0"));
  }
  SEMSHARE_RETURN_IF_ERROR(
      CheckAttribute(device, cudaDevAttrUnifiedAddressing, "unified addressing"));
  SEMSHARE_RETURN_IF_ERROR(CheckAttribute(device, cudaDevAttrCanUseHostPointerForRegisteredMem,
                                          "host addresses of registered memory"));
  DeviceFacts facts{properties.name, properties.multiProcessorCount};
  static_assert(sizeof(properties.uuid.bytes) == sizeof(facts.uuid));
  std::copy(std::begin(properties.uuid.bytes), std::end(properties.uuid.bytes), facts.uuid.begin());
  int shares_events = 0;
  SEMSHARE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&shares_events, cudaDevAttrIpcEventSupport, device));
  facts.shares_events = shares_events != 0;
  return facts;
}

MemorySpan AsSpan(const void* address, const MemorySpan& like) {
  return {reinterpret_cast<uintptr_t>(address), like.bytes, MemoryKind::kDevice};
}

KernelContext ContextOf(const CudaLane& lane) {
  return {lane.stream(), lane.error(), lane.scratch(), lane.scratch_bytes(),
          lane.multiprocessors()};
}

// One launch of items that share one, in pieces where its tables come from the host.
class RealignQueue {
 public:
  RealignQueue(CudaLane* lane, absl::Span<const RealignArgs> items)
      : lane_(*lane), shape_(ShapeOf(items)), launch_(MakeLaunch(items)) {}

  absl::Status Run() {
    // A table that a piece need not carry is used where it is.
    if (shape_.rows.kind == MemoryKind::kDevice) return RunWhole();
    const auto rows = absl::MakeConstSpan(reinterpret_cast<const RealignRow*>(shape_.rows.host()),
                                          static_cast<size_t>(shape_.row_count));
    const bool angles_staged = shape_.rotary_width > 0 && shape_.angles.kind == MemoryKind::kHost;
    const int64_t angle_bytes = angles_staged ? int64_t{shape_.rotary_width} * 4 : 0;
    for (int64_t begin = 0; begin < shape_.row_count;) {
      const RealignPiece piece = NextPiece(rows, begin, angle_bytes, lane_.staging_bytes());
      SEMSHARE_RETURN_IF_ERROR(RunPiece(piece, angles_staged));
      begin = piece.row_end;
    }
    return absl::OkStatus();
  }

 private:
  // The first rotated item, as MakeLaunch chooses it, or the first.
  static const RealignArgs& ShapeOf(absl::Span<const RealignArgs> items) {
    for (const RealignArgs& args : items) {
      if (args.rotary_width > 0) return args;
    }
    return items[0];
  }

  absl::Status RunWhole() {
    StagedTables tables(&lane_);
    if (shape_.rotary_width > 0) {
      SEMSHARE_ASSIGN_OR_RETURN(
          launch_.angles,
          tables.Input<float>("angles", shape_.angles, shape_.angle_rows * shape_.rotary_width));
    }
    SEMSHARE_RETURN_IF_ERROR(tables.Upload());
    return LaunchRealign(launch_, shape_.dtype, shape_.codec, ContextOf(lane_));
  }

  absl::Status RunPiece(const RealignPiece& piece, bool angles_staged) {
    StagedTables tables(&lane_);
    constexpr int64_t kRowBytes = sizeof(RealignRow);
    launch_.row_count = piece.row_end - piece.row_begin;
    SEMSHARE_ASSIGN_OR_RETURN(
        launch_.rows,
        tables.Input<RealignRow>(
            "rows", shape_.rows.Sub(piece.row_begin * kRowBytes, launch_.row_count * kRowBytes),
            launch_.row_count));
    if (angles_staged) {
      const int64_t row_bytes = int64_t{shape_.rotary_width} * 4;
      const int64_t rows = piece.angle_end - piece.angle_begin;
      launch_.angle_begin = piece.angle_begin;
      launch_.angle_end = piece.angle_end;
      SEMSHARE_ASSIGN_OR_RETURN(
          launch_.angles,
          tables.Input<float>("angles",
                              shape_.angles.Sub(piece.angle_begin * row_bytes, rows * row_bytes),
                              rows * shape_.rotary_width));
    }
    SEMSHARE_RETURN_IF_ERROR(tables.Upload());
    return LaunchRealign(launch_, shape_.dtype, shape_.codec, ContextOf(lane_));
  }

  CudaLane& lane_;
  const RealignArgs& shape_;
  RealignLaunch launch_;
};

class CudaBackend final : public Backend {
 public:
  static absl::StatusOr<std::unique_ptr<Backend>> Create(const CudaBackendOptions& options) {
    SEMSHARE_ASSIGN_OR_RETURN(const DeviceFacts facts, UseDevice(options.device));
    SEMSHARE_ASSIGN_OR_RETURN(const std::shared_ptr<const CublasLibrary> blas,
                              CublasLibrary::Load(options.cublas_library));
    std::unique_ptr<CudaBackend> backend(new CudaBackend(options.device, facts));
    std::vector<std::unique_ptr<Lane::Impl>> lanes;
    for (int i = 0; i < options.lanes; ++i) {
      SEMSHARE_ASSIGN_OR_RETURN(std::unique_ptr<CudaLane> lane,
                                CudaLane::Create(options, facts.multiprocessors, blas));
      lanes.push_back(std::move(lane));
    }
    backend->lanes_ = std::make_shared<LanePool>(std::move(lanes));
    SEMSHARE_RETURN_IF_ERROR(backend->events_->Grow(kEventsPerLane * options.lanes));
    return backend;
  }

  const BackendInfo& info() const override { return info_; }

  absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes) override {
    if (bytes < 1) {
      return absl::InvalidArgumentError(absl::StrCat("bytes is ", bytes, ": expected at least 1"));
    }
    SEMSHARE_RETURN_IF_ERROR(Bind());
    if (kind == MemoryKind::kDevice) {
      SEMSHARE_ASSIGN_OR_RETURN(DeviceMemory memory, NewDeviceMemory(bytes));
      return Known(std::move(memory), kind, bytes);
    }
    SEMSHARE_ASSIGN_OR_RETURN(PinnedMemory memory, NewPinnedMemory(bytes));
    return Known(std::move(memory), kind, bytes);
  }

  absl::StatusOr<Buffer> RegisterHost(MemorySpan memory) override {
    SEMSHARE_RETURN_IF_ERROR(CheckRegisterHost(memory));
    SEMSHARE_RETURN_IF_ERROR(Bind());
    SEMSHARE_RETURN_IF_ERROR(known_->Add(memory));
    const cudaError_t error = cudaHostRegister(memory.host(), static_cast<size_t>(memory.bytes),
                                               cudaHostRegisterPortable | cudaHostRegisterMapped);
    if (error != cudaSuccess) {
      known_->Remove(memory);
      const absl::Status status = CudaStatus(error, "registering host memory");
      return absl::ResourceExhaustedError(status.message());
    }
    return Buffer(memory, [known = known_](MemorySpan span) {
      known->Remove(span);
      static_cast<void>(cudaHostUnregister(span.host()));
    });
  }

  absl::StatusOr<std::unique_ptr<PeerMemory>> OpenPeerMemory(
      const PeerMemoryHandle& handle) override {
    if (!info_.opens_peer_memory) {
      return absl::UnimplementedError("cuda_ipc: the device shares no events between processes");
    }
    SEMSHARE_RETURN_IF_ERROR(CheckPeerDevice(uuid_, handle.device));
    SEMSHARE_RETURN_IF_ERROR(Bind());
    return OpenCudaPeerMemory(device_, handle, known_);
  }

  // On the lane's own queue, so a borrower forgets only what was before it.
  absl::StatusOr<Lane> AcquireLane(absl::Duration timeout) override {
    SEMSHARE_RETURN_IF_ERROR(Bind());
    SEMSHARE_ASSIGN_OR_RETURN(Lane lane, lanes_->Acquire(timeout));
    SEMSHARE_RETURN_IF_ERROR(Of(lane).ResetError());
    return lane;
  }

  absl::Status SupportsRealign(const RealignArgs& args) const override {
    return KernelsSupportRealign(args);
  }

  absl::Status EnqueueCopy(Lane& lane, MemorySpan destination, MemorySpan source) override {
    SEMSHARE_RETURN_IF_ERROR(CheckCopy(destination, source));
    SEMSHARE_RETURN_IF_ERROR(CheckDevice({{"destination", destination}, {"source", source}}));
    SEMSHARE_RETURN_IF_ERROR(Bind());
    return QueueCopy(Of(lane), destination, source,
                     {known_->Contains(destination), known_->Contains(source)});
  }

  using Backend::EnqueueRealign;
  absl::Status EnqueueRealign(Lane& lane, absl::Span<const RealignArgs> batch) override {
    SEMSHARE_RETURN_IF_ERROR(CheckRealignBatch(batch));
    for (const RealignArgs& args : batch) {
      SEMSHARE_RETURN_IF_ERROR(CheckOperands(args));
      SEMSHARE_RETURN_IF_ERROR(CheckDevice({{"rows", args.rows}, {"angles", args.angles}}));
    }
    SEMSHARE_RETURN_IF_ERROR(Bind());
    while (!batch.empty()) {
      const size_t items = LaunchItems(batch);
      SEMSHARE_RETURN_IF_ERROR(RealignQueue(&Of(lane), batch.subspan(0, items)).Run());
      batch.remove_prefix(items);
    }
    return absl::OkStatus();
  }

  absl::Status EnqueueProject(Lane& lane, const ProjectArgs& args) override {
    SEMSHARE_RETURN_IF_ERROR(CheckProject(args));
    SEMSHARE_RETURN_IF_ERROR(CheckOperands(args));
    SEMSHARE_RETURN_IF_ERROR(CheckDevice({{"bias", args.bias}}));
    SEMSHARE_RETURN_IF_ERROR(Bind());
    StagedTables tables(&Of(lane));
    ProjectArgs staged = args;
    if (args.bias.bytes > 0) {
      SEMSHARE_ASSIGN_OR_RETURN(const float* const bias,
                                tables.Input<float>("bias", args.bias, args.n));
      staged.bias = AsSpan(bias, args.bias);
    }
    SEMSHARE_RETURN_IF_ERROR(tables.Upload());
    return LaunchProject(staged, Of(lane).blas(), ContextOf(Of(lane)));
  }

  absl::Status EnqueueSignature(Lane& lane, const SignatureArgs& args) override {
    SEMSHARE_RETURN_IF_ERROR(CheckSignature(args));
    SEMSHARE_RETURN_IF_ERROR(CheckOperands(args));
    SEMSHARE_RETURN_IF_ERROR(
        CheckDevice({{"ids", args.ids}, {"windows", args.windows}, {"codes", args.codes}}));
    SEMSHARE_RETURN_IF_ERROR(Bind());
    StagedTables tables(&Of(lane));
    SEMSHARE_ASSIGN_OR_RETURN(const uint32_t* const ids,
                              tables.Input<uint32_t>("ids", args.ids, args.count));
    SEMSHARE_ASSIGN_OR_RETURN(
        const int64_t* const windows,
        tables.Input<int64_t>("windows", args.windows, 2 * args.window_count));
    SEMSHARE_ASSIGN_OR_RETURN(
        uint64_t* const codes,
        tables.Output<uint64_t>("codes", args.codes, args.window_count * (args.bits / 64)));
    SEMSHARE_RETURN_IF_ERROR(tables.Upload());
    SignatureArgs staged = args;
    staged.ids = AsSpan(ids, args.ids);
    staged.windows = AsSpan(windows, args.windows);
    staged.codes = AsSpan(codes, args.codes);
    SEMSHARE_RETURN_IF_ERROR(LaunchSignature(staged, ContextOf(Of(lane))));
    return tables.Return();
  }

  absl::Status EnqueueHammingTopK(Lane& lane, const HammingTopKArgs& args) override {
    SEMSHARE_RETURN_IF_ERROR(CheckHammingTopK(args));
    SEMSHARE_RETURN_IF_ERROR(CheckDevice({{"codes", args.codes},
                                          {"live", args.live},
                                          {"queries", args.queries},
                                          {"indices", args.indices},
                                          {"distances", args.distances}}));
    SEMSHARE_RETURN_IF_ERROR(Bind());
    StagedTables tables(&Of(lane));
    HammingTopKArgs staged = args;
    SEMSHARE_ASSIGN_OR_RETURN(const uint64_t* const codes,
                              tables.Input<uint64_t>("codes", args.codes, args.count * args.words));
    SEMSHARE_ASSIGN_OR_RETURN(const uint64_t* const live,
                              tables.Input<uint64_t>("live", args.live, (args.count + 63) / 64));
    SEMSHARE_ASSIGN_OR_RETURN(
        const uint64_t* const queries,
        tables.Input<uint64_t>("queries", args.queries, args.query_count * args.words));
    SEMSHARE_ASSIGN_OR_RETURN(
        int64_t* const indices,
        tables.Output<int64_t>("indices", args.indices, args.query_count * args.k));
    SEMSHARE_ASSIGN_OR_RETURN(
        int32_t* const distances,
        tables.Output<int32_t>("distances", args.distances, args.query_count * args.k));
    SEMSHARE_RETURN_IF_ERROR(tables.Upload());
    staged.codes = AsSpan(codes, args.codes);
    staged.live = AsSpan(live, args.live);
    staged.queries = AsSpan(queries, args.queries);
    staged.indices = AsSpan(indices, args.indices);
    staged.distances = AsSpan(distances, args.distances);
    SEMSHARE_RETURN_IF_ERROR(LaunchHammingTopK(staged, ContextOf(Of(lane))));
    return tables.Return();
  }

  absl::Status EnqueueTokenCodes(Lane& lane, const TokenCodesArgs& args) override {
    SEMSHARE_RETURN_IF_ERROR(CheckTokenCodes(args));
    SEMSHARE_RETURN_IF_ERROR(CheckOperands(args));
    SEMSHARE_RETURN_IF_ERROR(
        CheckDevice({{"ids", args.ids}, {"positions", args.positions}, {"codes", args.codes}}));
    SEMSHARE_RETURN_IF_ERROR(Bind());
    // As the CPU backend forms them.
    std::vector<double> values(static_cast<size_t>(args.width / 2));
    for (size_t j = 0; j < values.size(); ++j) {
      values[j] = std::pow(args.theta, -2.0 * static_cast<double>(j) / args.width);
    }
    StagedTables tables(&Of(lane));
    SEMSHARE_ASSIGN_OR_RETURN(
        const double* const frequencies,
        tables.Input<double>("frequencies", HostSpan(values.data(), args.width / 2),
                             args.width / 2));
    SEMSHARE_ASSIGN_OR_RETURN(const uint32_t* const ids,
                              tables.Input<uint32_t>("ids", args.ids, args.count));
    SEMSHARE_ASSIGN_OR_RETURN(const int64_t* const positions,
                              tables.Input<int64_t>("positions", args.positions, args.count));
    SEMSHARE_ASSIGN_OR_RETURN(
        uint64_t* const codes,
        tables.Output<uint64_t>("codes", args.codes, args.count * (args.bits / 64)));
    SEMSHARE_RETURN_IF_ERROR(tables.Upload());
    TokenCodesArgs staged = args;
    staged.ids = AsSpan(ids, args.ids);
    staged.positions = AsSpan(positions, args.positions);
    staged.codes = AsSpan(codes, args.codes);
    SEMSHARE_RETURN_IF_ERROR(
        LaunchTokenCodes(staged, frequencies, Of(lane).blas(), ContextOf(Of(lane))));
    return tables.Return();
  }

  absl::Status EnqueueNearestCode(Lane& lane, const NearestCodeArgs& args) override {
    SEMSHARE_RETURN_IF_ERROR(CheckNearestCode(args));
    SEMSHARE_RETURN_IF_ERROR(CheckDevice({{"queries", args.queries},
                                          {"codes", args.codes},
                                          {"windows", args.windows},
                                          {"indices", args.indices},
                                          {"distances", args.distances}}));
    SEMSHARE_RETURN_IF_ERROR(Bind());
    StagedTables tables(&Of(lane));
    SEMSHARE_ASSIGN_OR_RETURN(
        const uint64_t* const queries,
        tables.Input<uint64_t>("queries", args.queries, args.query_count * args.words));
    SEMSHARE_ASSIGN_OR_RETURN(const uint64_t* const codes,
                              tables.Input<uint64_t>("codes", args.codes, args.count * args.words));
    SEMSHARE_ASSIGN_OR_RETURN(const int64_t* const windows,
                              tables.Input<int64_t>("windows", args.windows, 2 * args.query_count));
    SEMSHARE_ASSIGN_OR_RETURN(int64_t* const indices,
                              tables.Output<int64_t>("indices", args.indices, args.query_count));
    SEMSHARE_ASSIGN_OR_RETURN(
        int32_t* const distances,
        tables.Output<int32_t>("distances", args.distances, args.query_count));
    SEMSHARE_RETURN_IF_ERROR(tables.Upload());
    NearestCodeArgs staged = args;
    staged.queries = AsSpan(queries, args.queries);
    staged.codes = AsSpan(codes, args.codes);
    staged.windows = AsSpan(windows, args.windows);
    staged.indices = AsSpan(indices, args.indices);
    staged.distances = AsSpan(distances, args.distances);
    SEMSHARE_RETURN_IF_ERROR(LaunchNearestCode(staged, ContextOf(Of(lane))));
    return tables.Return();
  }

  absl::Status EnqueueChecksum(Lane& lane, absl::Span<const MemorySpan> spans,
                               MemorySpan digests) override {
    SEMSHARE_RETURN_IF_ERROR(CheckChecksum(spans, digests));
    for (const MemorySpan& span : spans) SEMSHARE_RETURN_IF_ERROR(CheckDevice({{"spans", span}}));
    SEMSHARE_RETURN_IF_ERROR(Bind());
    return QueueChecksum(Of(lane), spans, reinterpret_cast<uint64_t*>(digests.host()));
  }

  absl::StatusOr<Event> Record(Lane& lane) override {
    SEMSHARE_RETURN_IF_ERROR(Bind());
    return events_->Record(Of(lane).stream(), Of(lane).error());
  }

 private:
  CudaBackend(int device, const DeviceFacts& facts)
      : device_(device),
        uuid_(facts.uuid),
        info_{"cuda", absl::StrCat(facts.name, ", device ", device), facts.shares_events},
        events_(std::make_shared<EventPool>(device)) {}

  static CudaLane& Of(Lane& lane) { return *static_cast<CudaLane*>(lane.impl()); }

  // Callers come on any thread; the device is a property of the thread.
  absl::Status Bind() const {
    SEMSHARE_CUDA_RETURN_IF_ERROR(cudaSetDevice(device_));
    return absl::OkStatus();
  }

  // `memory` as a Buffer that the registry knows.
  template <class Memory>
  absl::StatusOr<Buffer> Known(Memory memory, MemoryKind kind, int64_t bytes) {
    const MemorySpan span{reinterpret_cast<uintptr_t>(memory.get()), bytes, kind};
    SEMSHARE_RETURN_IF_ERROR(known_->Add(span));
    auto owned = std::make_shared<Memory>(std::move(memory));
    return Buffer(span, [owned = std::move(owned), known = known_](MemorySpan freed) mutable {
      known->Remove(freed);
      owned.reset();
    });
  }

  // Device spans are memory of this backend.
  absl::Status CheckDevice(std::initializer_list<NamedSpan> spans) const {
    for (const NamedSpan& named : spans) {
      if (named.span.kind == MemoryKind::kHost || known_->Contains(named.span)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(named.name, " is device memory that is not known here"));
    }
    return absl::OkStatus();
  }

  template <typename Args>
  absl::Status CheckOperands(const Args& args) const {
    for (const NamedSpan& operand : OperandsOf(args)) {
      if (known_->Contains(operand.span)) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          operand.name, operand.span.kind == MemoryKind::kDevice
                            ? " is device memory that is not known here"
                            : " is host memory that was neither allocated nor registered here"));
    }
    return absl::OkStatus();
  }

  const int device_;
  const std::array<char, 16> uuid_;
  const BackendInfo info_;
  // All below provide their own synchronization. Shared with the buffers.
  const std::shared_ptr<SpanRegistry> known_ = std::make_shared<SpanRegistry>();
  const std::shared_ptr<EventPool> events_;
  std::shared_ptr<LanePool> lanes_;  // constant after Create
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaBackendOptions& options) {
  SEMSHARE_RETURN_IF_ERROR(options.Validate());
  return CudaBackend::Create(options);
}

}  // namespace semshare
