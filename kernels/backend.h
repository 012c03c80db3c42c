// Backend: memory and compute of one device behind one asynchronous interface.
//
// Memory is an opaque Buffer. Work is enqueued on a Lane (an ordered queue: a stream) and ends in
// an Event. Every span that an operation names, source, destination or table, must stay valid and,
// where it is read, unchanged until an Event recorded after the operation is done. Operations of
// one lane run in order; lanes run independently. Device memory must never be touched by the host:
// copy it to host memory first.
//
// Host memory comes in two kinds. A device reaches what Allocate(kHost) gave or RegisterHost made
// known; other host memory it does not. Large operands must be reachable: device memory or the
// first kind (kernels/operands.h lists them: source and destination of a realign, matrices, tables
// that stay). Everything else (rows, angles, ids, windows, codes, results, both ends of a copy) may
// be any host memory: a backend carries it over in staging of the lane, and says
// RESOURCE_EXHAUSTED, naming its limit, when it does not fit. The CPU backend reaches everything.
//
// A Backend is thread-safe. A Lane belongs to one thread at a time. An Event is thread-safe.
// Enqueue* check every address against its span before any work is queued, and return
// INVALID_ARGUMENT without queueing; a value that has no kernel is UNIMPLEMENTED, naming it.
// Errors that appear later surface in Event::Wait.
#ifndef SEMSHARE_KERNELS_BACKEND_H_
#define SEMSHARE_KERNELS_BACKEND_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"
#include "kernels/rotary.h"

namespace semshare {

enum class MemoryKind { kDevice, kHost };

// A range of a Buffer, or of host memory that the caller owns. The address of a device span means
// something to its backend only.
struct MemorySpan {
  uintptr_t address = 0;
  int64_t bytes = 0;
  MemoryKind kind = MemoryKind::kHost;

  // REQUIRES: 0 <= offset, 0 <= length, offset + length <= bytes.
  MemorySpan Sub(int64_t offset, int64_t length) const;
  // REQUIRES: kind == kHost.
  std::byte* host() const;
};

// Host memory of the caller as a span. Work only reads spans that it is told to read.
template <typename T>
MemorySpan HostSpan(const T* data, int64_t count) {
  return MemorySpan{reinterpret_cast<uintptr_t>(data), count * static_cast<int64_t>(sizeof(T)),
                    MemoryKind::kHost};
}

// Owns an allocation of a Backend; frees it when destroyed. Move-only.
// The Backend must outlive it, and no work on it may be pending then.
class Buffer {
 public:
  using Deleter = std::function<void(MemorySpan)>;

  Buffer() = default;
  Buffer(MemorySpan span, Deleter deleter) : span_(span), deleter_(std::move(deleter)) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  const MemorySpan& span() const { return span_; }

 private:
  MemorySpan span_;
  Deleter deleter_;
};

// A point in a lane's work. Copyable; copies name the same point.
class Event {
 public:
  // What a backend implements: Done does not block, Wait does.
  class State {
   public:
    virtual ~State() = default;
    virtual bool Done() = 0;
    virtual absl::Status Wait() = 0;
  };

  // An event that is done already, with the status of its work.
  explicit Event(absl::Status status = absl::OkStatus()) : status_(std::move(status)) {}
  explicit Event(std::shared_ptr<State> state) : state_(std::move(state)) {}

  bool Done() const { return state_ == nullptr || state_->Done(); }
  // Blocks until the work before the event is done; returns its first error.
  absl::Status Wait() const { return state_ == nullptr ? status_ : state_->Wait(); }

 private:
  absl::Status status_;
  std::shared_ptr<State> state_;
};

// An ordered queue of one backend, borrowed by one transfer at a time and returned when destroyed.
// Move-only. Returning a lane does not wait for its work.
class Lane {
 public:
  // What a backend keeps for a lane (its stream).
  class Impl {
   public:
    virtual ~Impl() = default;
  };
  using Returner = std::function<void(std::unique_ptr<Impl>)>;

  Lane(std::unique_ptr<Impl> impl, Returner returner)
      : impl_(std::move(impl)), returner_(std::move(returner)) {}
  Lane(Lane&&) noexcept = default;
  Lane& operator=(Lane&&) = delete;
  ~Lane() {
    if (impl_ != nullptr) returner_(std::move(impl_));
  }

  Impl* impl() { return impl_.get(); }

 private:
  std::unique_ptr<Impl> impl_;
  Returner returner_;
};

// Device memory that another process of this host shares, in that process's words: CUDA's handles,
// which its driver made (cudaIpcGetMemHandle, cudaIpcGetEventHandle), and where in the allocation
// the memory lies. None of it is to be trusted.
struct PeerMemoryHandle {
  std::array<char, 16> device = {};      // UUID of its device
  std::array<char, 64> allocation = {};  // cudaIpcMemHandle_t
  std::array<char, 64> event = {};       // cudaIpcEventHandle_t
  int64_t offset = 0;                    // from the start of the allocation
  int64_t bytes = 0;
};

// Memory of a peer, mapped here; unmapped when destroyed. The Backend must outlive it, and no work
// on it may be pending then. Thread-safe.
//
// Order. What the peer did to the memory comes before the broker's work by EnqueueWait. The other
// way around nothing is needed: once an Event of the lane is done on the host, its writes are in
// the memory of the device that both share, so whatever the peer launches after it heard of that
// sees them.
class PeerMemory {
 public:
  virtual ~PeerMemory() = default;

  const MemorySpan& span() const { return span_; }

  // Later work of the lane waits until everything before the peer's last record of its event is
  // done; at once if it never recorded it.
  virtual absl::Status EnqueueWait(Lane& lane) const = 0;

 protected:
  explicit PeerMemory(const MemorySpan& span) : span_(span) {}

 private:
  const MemorySpan span_;
};

// A strided destination of rows: element (slot, head, e) lies at
//   (slot / block_tokens) * block_stride + (slot % block_tokens) * token_stride
//     + head * head_stride + e * element_stride
// bytes from the start of `memory`. Contiguous [token][head][width] is block_tokens = 1 with
// block_stride = heads * width * sizeof(element). Strides are in bytes and may be 0 or negative as
// long as every address stays inside.
struct PlaneView {
  MemorySpan memory;
  int64_t block_tokens = 1;
  int64_t block_stride = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  int64_t element_stride = 0;

  constexpr int64_t Offset(int64_t slot, int64_t head, int64_t element) const {
    // Not paged: the two divisions would cost more than a short row's copy.
    if (block_tokens == 1)
      return slot * block_stride + head * head_stride + element * element_stride;
    return (slot / block_tokens) * block_stride + (slot % block_tokens) * token_stride +
           head * head_stride + element * element_stride;
  }
};

// PlaneView of a contiguous [slot][head][width] range.
PlaneView ContiguousView(MemorySpan memory, int32_t heads, int32_t width, Dtype dtype);

// Where one row comes from and goes to. The same table serves every layer and plane of a match.
struct RealignRow {
  int64_t chunk_offset = 0;  // bytes from the start of `source` to the row's chunk
  int32_t chunk_token = 0;   // token within the chunk
  int32_t angle_row = -1;    // row of the angle table; -1: copy without rotation
  int64_t slot = 0;          // destination slot; < 0: the row is skipped
};

// How the source's bytes are stored. Frozen: stored on disk. kRaw: elements of the dtype. The
// others store an element in one byte, and one float32 scale for each head of each token:
//
//   chunk + slab_offset                              chunk + scale_offset
//   |                                                |
//   +-------------------+-------------------+-- ... -+----+----+-- ... -+----+-- ...
//   | token 0, head 0   | token 0, head 1   |    pad |t0h0|t0h1|        |t1h0|
//   +-------------------+-------------------+-- ... -+----+----+-- ... -+----+-- ...
//     width bytes each                                 4 bytes each
//
// element = decode(byte) * scale, in fp32 (kernels/codec.h). One scale per head, because heads
// differ in size by far more than the elements of one; apart from the payload, so that rows of it
// stay aligned to 16 bytes and a reader takes one scale per head.
enum class Codec : uint8_t { kRaw = 1, kFp8E4m3 = 2, kInt8 = 3 };

// Gathers rows of one (layer, plane), decodes them, rotates the rotary range, writes them to a view
// of the dtype. Arithmetic is in fp32 with one rounding at the store; rows of kRaw without an angle
// are copied byte for byte.
// Row i is read at source + rows[i].chunk_offset + slab_offset + chunk_token * heads * width *
// sizeof(stored element), its scales at source + rows[i].chunk_offset + scale_offset +
// chunk_token * heads * sizeof(float).
struct RealignArgs {
  Dtype dtype = Dtype::kFloat32;
  Codec codec = Codec::kRaw;
  int32_t heads = 0;
  int32_t width = 0;
  int32_t rotary_begin = 0;
  int32_t rotary_width = 0;  // 0: every row is copied
  RotaryPairing pairing = RotaryPairing::kHalfSplit;
  MemorySpan source;
  int64_t slab_offset = 0;
  int64_t scale_offset = 0;  // a multiple of 4; codecs other than kRaw
  MemorySpan rows;           // RealignRow[row_count], host-readable or device
  int64_t row_count = 0;
  MemorySpan angles;  // float[angle_rows][2][rotary_width / 2]: g cos, then g sin; finite
  int64_t angle_rows = 0;
  PlaneView destination;
  // A hint: the destination is large, and whoever reads it does so later or on another core. A CPU
  // then writes past its caches.
  bool streaming = false;
};

// Row-major C[m][n] = A[m][k] * B[k][n] - bias[n], float32 (bias may be empty).
struct ProjectArgs {
  MemorySpan a, b, bias, c;
  int64_t m = 0, n = 0, k = 0;
};

// Sign signatures of weighted sums of projected rows: code w has bit b set where
// sum over i in window w of weight[id_i] * projected[id_i][b] > 0.
struct SignatureArgs {
  MemorySpan projected;  // float[vocab][bits]
  MemorySpan weights;    // float[vocab]
  int64_t vocab = 0;
  int32_t bits = 0;  // a multiple of 64
  MemorySpan ids;    // uint32[count], each < vocab (checked for host spans)
  int64_t count = 0;
  MemorySpan windows;  // int64[window_count][2]: begin, end
  int64_t window_count = 0;
  MemorySpan codes;  // out: uint64[window_count][bits / 64]
};

// The k live codes nearest to each query by Hamming distance; ties go to the lower index; fewer
// than k live codes leave index -1.
struct HammingTopKArgs {
  MemorySpan codes;  // uint64[count][words]
  int64_t count = 0;
  int32_t words = 0;
  MemorySpan live;     // uint64[ceil(count / 64)], bit i: code i is live
  MemorySpan queries;  // uint64[query_count][words]
  int64_t query_count = 0;
  int32_t k = 0;         // 1..64
  MemorySpan indices;    // out: int64[query_count][k]
  MemorySpan distances;  // out: int32[query_count][k]

  // Leave to look at less than everything: if shortlist > 0, only about that many live codes need
  // be compared, those whose first words are nearest to the query's. `first_words` has them packed,
  // so that a CPU passes over a fraction of the memory. A backend may scan everything all the same.
  MemorySpan first_words;  // uint64[count]: word 0 of each code; unused if shortlist == 0
  int64_t shortlist = 0;
};

// Sign codes of token embeddings with RoPE over the embedding dimension (interleaved pairs, base
// theta; SemShareKV, arXiv 2509.24832): code i = signs of rope(table[id_i], position_i) * matrix.
struct TokenCodesArgs {
  MemorySpan table;  // float[vocab][width]
  int64_t vocab = 0;
  int32_t width = 0;     // even
  MemorySpan matrix;     // float[width][bits]
  int32_t bits = 0;      // a multiple of 64
  MemorySpan ids;        // uint32[count]
  MemorySpan positions;  // int64[count]
  int64_t count = 0;
  double theta = 1e4;
  MemorySpan codes;  // out: uint64[count][bits / 64]
};

// For each query the nearest code by Hamming distance among codes [begin, end) of its window; ties
// go to the lower index; an empty window gives index -1.
struct NearestCodeArgs {
  MemorySpan queries;  // uint64[query_count][words]
  int64_t query_count = 0;
  MemorySpan codes;  // uint64[count][words]
  int64_t count = 0;
  int32_t words = 0;
  MemorySpan windows;    // int64[query_count][2]
  MemorySpan indices;    // out: int64[query_count]
  MemorySpan distances;  // out: int32[query_count]
};

struct BackendInfo {
  std::string name;    // "cpu", "cuda"
  std::string device;  // for people
  bool opens_peer_memory = false;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual const BackendInfo& info() const = 0;

  // Memory of `bytes` bytes, aligned to 256, with every page touched. Called at start-up.
  // RESOURCE_EXHAUSTED if there is not that much.
  virtual absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes) = 0;

  // Makes host memory of the caller reachable, page-locking it where the device needs that; the
  // Buffer undoes it when destroyed, and does not free the memory. For long-lived regions: it is
  // slow. INVALID_ARGUMENT unless it is host memory of at least a byte; RESOURCE_EXHAUSTED if the
  // system refuses to lock that much.
  virtual absl::StatusOr<Buffer> RegisterHost(MemorySpan memory) = 0;

  // Maps memory of another process. It is device memory like any other then, and may be opened
  // several times. FAILED_PRECONDITION saying why if it is another device's, or cannot be shared
  // this way; INVALID_ARGUMENT if it is not within its allocation, by the driver's word;
  // UNIMPLEMENTED, as here, if the backend has no such thing. Slow: for long-lived regions.
  virtual absl::StatusOr<std::unique_ptr<PeerMemory>> OpenPeerMemory(
      const PeerMemoryHandle& handle);

  // Borrows a lane; waits for one at most `timeout`, then RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<Lane> AcquireLane(absl::Duration timeout) = 0;

  // OK, or UNIMPLEMENTED naming what has no kernel. Looks at dtype, codec, width and pairing only.
  virtual absl::Status SupportsRealign(const RealignArgs& args) const = 0;

  // REQUIRES: destination.bytes == source.bytes; the ranges do not overlap.
  virtual absl::Status EnqueueCopy(Lane& lane, MemorySpan destination, MemorySpan source) = 0;
  // One operation for many slabs, in the order given: neighbours that share their tables and shape
  // (the planes of a model's layers) become one kernel on a device. Queues all or nothing: an error
  // of item i is "realign[i]: ...". REQUIRES of the result: no slab reads what another one writes.
  virtual absl::Status EnqueueRealign(Lane& lane, absl::Span<const RealignArgs> batch) = 0;
  absl::Status EnqueueRealign(Lane& lane, const RealignArgs& args) {
    return EnqueueRealign(lane, absl::MakeConstSpan(&args, 1));
  }
  virtual absl::Status EnqueueProject(Lane& lane, const ProjectArgs& args) = 0;
  virtual absl::Status EnqueueSignature(Lane& lane, const SignatureArgs& args) = 0;
  virtual absl::Status EnqueueHammingTopK(Lane& lane, const HammingTopKArgs& args) = 0;
  virtual absl::Status EnqueueTokenCodes(Lane& lane, const TokenCodesArgs& args) = 0;
  virtual absl::Status EnqueueNearestCode(Lane& lane, const NearestCodeArgs& args) = 0;
  // XXH3-64 of each span; digests is uint64[spans.size()] in host memory.
  virtual absl::Status EnqueueChecksum(Lane& lane, absl::Span<const MemorySpan> spans,
                                       MemorySpan digests) = 0;

  // The point after everything enqueued on the lane so far.
  virtual absl::StatusOr<Event> Record(Lane& lane) = 0;
};

struct CpuBackendOptions {
  int lanes = 4;    // 1..256
  int threads = 1;  // threads of one operation, 1..64
  absl::Status Validate() const;
};

// The readable reference: runs each operation in the calling thread before Enqueue* returns.
absl::StatusOr<std::unique_ptr<Backend>> NewCpuBackend(const CpuBackendOptions& options);

struct CudaBackendOptions {
  int device = 0;  // ordinal, 0..63
  int lanes = 4;   // 1..256
  // Of each of a lane's two pinned buffers and of its device buffer for tables: 1 MiB to 1 GiB.
  // What one operation takes and gives in host memory, its operands aside, must fit; the rows and
  // angles of a realign are cut into pieces that do.
  int64_t staging_bytes = int64_t{16} << 20;
  // Device memory of a lane for intermediate results: 1 MiB to 1 GiB.
  int64_t scratch_bytes = int64_t{16} << 20;
  // Loaded when the backend is made, by the loader's rules, so that a program runs without it.
  std::string cublas_library = "libcublas.so.13";
  absl::Status Validate() const;
};

// One GPU. FAILED_PRECONDITION saying why if there is no device that it can use, UNIMPLEMENTED if
// this build has no CUDA backend, RESOURCE_EXHAUSTED if the device has not the memory.
absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaBackendOptions& options);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_BACKEND_H_
