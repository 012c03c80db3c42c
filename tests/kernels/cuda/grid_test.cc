#include "kernels/cuda/grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/hamming_key.h"

namespace semshare {
namespace {

TEST(GridTest, BlocksAreEnoughAndBounded) {
  EXPECT_EQ(GridBlocks(0, 8, 100), 1U);
  EXPECT_EQ(GridBlocks(8, 8, 100), 1U);
  EXPECT_EQ(GridBlocks(9, 8, 100), 2U);
  EXPECT_EQ(GridBlocks(int64_t{1} << 60, 1, 65536), 65536U);
}

// The scan strides over its grid as the kernel does: every code is seen by exactly one warp.
TEST(ScanGridTest, EveryBatchIsScannedOnce) {
  for (const int64_t count : {1, 31, 32, 33, 1000, 100000, 1000000}) {
    const ScanGrid grid = MakeScanGrid(count, 1, 8, 132, 16 << 20);
    std::vector<int> seen(static_cast<size_t>(CeilDiv(count, kWarpLanes)));
    const int64_t step = int64_t{grid.blocks} * kScanWarps;
    for (int64_t block = 0; block < grid.blocks; ++block) {
      for (int warp = 0; warp < kScanWarps; ++warp) {
        for (int64_t batch = block * kScanWarps + warp; batch < static_cast<int64_t>(seen.size());
             batch += step) {
          ++seen[static_cast<size_t>(batch)];
        }
      }
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<int64_t>(seen.size())) << count;
  }
}

TEST(ScanGridTest, PassesFitScratch) {
  for (const int64_t scratch : {int64_t{1} << 20, int64_t{16} << 20}) {
    for (const int32_t k : {1, 8, 64}) {
      for (const int64_t queries : {int64_t{1}, int64_t{64}, int64_t{1000000}}) {
        for (const int64_t count : {int64_t{1}, int64_t{1000000}, int64_t{1} << 40}) {
          const ScanGrid grid = MakeScanGrid(count, queries, k, 132, scratch);
          ASSERT_GE(grid.blocks, 1U);
          ASSERT_LE(grid.blocks, kMaxScanBlocks);
          ASSERT_GE(grid.pass_queries, 1);
          ASSERT_LE(grid.pass_queries, std::min(queries, kMaxGridY));
          ASSERT_LE(grid.partial_bytes, scratch);
          ASSERT_EQ(grid.partial_bytes, int64_t{grid.blocks} * grid.pass_queries * k * 8);
        }
      }
    }
  }
  // A batch of 64 is one pass.
  EXPECT_EQ(MakeScanGrid(1000000, 64, 8, 132, 16 << 20).pass_queries, 64);
}

// A sorted list of 64 keys, two for each of 32 lanes, kept as the kernel's WarpList keeps it.
class EmulatedList {
 public:
  explicit EmulatedList(int k) : k_(k), keys_(64, kNoHammingKey) {}

  void Offer(uint64_t key) {
    if (key >= keys_[static_cast<size_t>(k_ - 1)]) return;
    const int rank = static_cast<int>(
        std::count_if(keys_.begin(), keys_.end(), [key](uint64_t own) { return own < key; }));
    std::vector<uint64_t> after(64);
    for (int i = 0; i < 64; ++i) {
      const uint64_t previous = i == 0 ? 0 : keys_[static_cast<size_t>(i - 1)];
      after[static_cast<size_t>(i)] =
          KeyAfterInsert(i, rank, keys_[static_cast<size_t>(i)], previous, key);
    }
    keys_ = after;
  }
  std::vector<uint64_t> Best() const { return {keys_.begin(), keys_.begin() + k_}; }

 private:
  const int k_;
  std::vector<uint64_t> keys_;
};

TEST(KeyAfterInsertTest, AListKeepsTheSmallest) {
  std::mt19937_64 random(17);
  for (const int k : {1, 2, 31, 32, 33, 63, 64}) {
    for (const int count : {0, 1, 40, 64, 500}) {
      EmulatedList list(k);
      std::vector<uint64_t> all;
      for (int i = 0; i < count; ++i) {
        all.push_back(HammingKey(static_cast<int32_t>(random() % 7), i));  // many ties
        list.Offer(all.back());
      }
      std::sort(all.begin(), all.end());
      all.resize(static_cast<size_t>(k), kNoHammingKey);
      EXPECT_EQ(list.Best(), all) << k << " of " << count;
    }
  }
}

TEST(TokenTileTest, RowsAndDotsFillScratch) {
  // Widest embeddings and longest codes in the smallest scratch.
  EXPECT_GE(TokenTile(65536, 4096, 1 << 20), 1);
  EXPECT_EQ(TokenTile(4096, 256, 16 << 20), (16 << 20) / 17408);
}

}  // namespace
}  // namespace semshare
