// Grids: how work is split into blocks and warps, and how much fits scratch. Every kernel whose
// work has no bound strides over its grid, so a grid never exceeds what CUDA allows.
//
// Thread-safe: pure functions; constexpr, so that device code may call them. No CUDA here.
#ifndef SEMSHARE_KERNELS_CUDA_GRID_H_
#define SEMSHARE_KERNELS_CUDA_GRID_H_

#include <algorithm>
#include <cstdint>

namespace semshare {

inline constexpr int kWarpLanes = 32;
inline constexpr int64_t kMaxGridX = (int64_t{1} << 31) - 1;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks for `items` of which a block does `per_block` at a time: enough for all, at most `most`,
// at least one. The kernel strides over the rest.
constexpr unsigned GridBlocks(int64_t items, int64_t per_block, int64_t most) {
  return static_cast<unsigned>(std::clamp<int64_t>(CeilDiv(items, per_block), 1, most));
}

// How a Hamming scan is spread: each block leaves `k` keys per query in scratch, and the merge
// reads them. A pass does as many queries as fit.
struct ScanGrid {
  unsigned blocks = 0;        // per query
  int64_t pass_queries = 0;   // per pass, at least 1
  int64_t partial_bytes = 0;  // of scratch in a full pass
};

inline constexpr int kScanWarps = 8;               // per block
inline constexpr int64_t kScanBatchesPerWarp = 4;  // at least, of 32 codes
inline constexpr int kScanBlocksPerMultiprocessor = 4;
inline constexpr int64_t kMaxScanBlocks = 1024;
inline constexpr int64_t kMaxGridY = 65535;

// REQUIRES: count >= 1, 1 <= k <= 64, scratch_bytes >= 1 MiB.
constexpr ScanGrid MakeScanGrid(int64_t count, int64_t query_count, int32_t k, int multiprocessors,
                                int64_t scratch_bytes) {
  ScanGrid grid;
  const int64_t most =
      std::min<int64_t>(kMaxScanBlocks, int64_t{kScanBlocksPerMultiprocessor} * multiprocessors);
  grid.blocks = GridBlocks(CeilDiv(count, kWarpLanes), kScanWarps * kScanBatchesPerWarp, most);
  const int64_t query_bytes = int64_t{grid.blocks} * k * static_cast<int64_t>(sizeof(uint64_t));
  grid.pass_queries = std::clamp<int64_t>(scratch_bytes / query_bytes, 1,
                                          std::min<int64_t>(query_count, kMaxGridY));
  grid.partial_bytes = grid.pass_queries * query_bytes;
  return grid;
}

// The key at `position` of a sorted list after `key` came in at `rank`: what lies before stays,
// what lies behind moves up by one (`previous` is the key at position - 1).
constexpr uint64_t KeyAfterInsert(int position, int rank, uint64_t own, uint64_t previous,
                                  uint64_t key) {
  if (position < rank) return own;
  return position == rank ? key : previous;
}

// Tokens of one tile of token codes: rotated rows and dot products, in fp32, fill scratch.
// REQUIRES: one token fits (checked by the limits of width and bits).
constexpr int64_t TokenTile(int64_t width, int64_t bits, int64_t scratch_bytes) {
  return scratch_bytes / ((width + bits) * static_cast<int64_t>(sizeof(float)));
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_GRID_H_
