#include "kernels/cpu/copy.h"

#include <cstring>

namespace semshare {
namespace {

// Below this a second thread costs more than it copies.
constexpr int64_t kPieceBytes = int64_t{1} << 20;

}  // namespace

void Copy(const MemorySpan& destination, const MemorySpan& source, WorkerPool& pool) {
  pool.ParallelFor(source.bytes, kPieceBytes, [&](int64_t begin, int64_t end) {
    std::memcpy(destination.host() + begin, source.host() + begin,
                static_cast<size_t>(end - begin));
  });
}

}  // namespace semshare
