#include "server/match/posting_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <thread>

namespace semshare {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

using Hashes = std::vector<uint64_t>;

// Hashes of the table are spread over all 64 bits, as keyed ones are.
uint64_t Spread(uint64_t number) { return number * 0x9e3779b97f4a7c15u; }

std::vector<PostingTable::Hit> Find(const PostingTable& table, const Hashes& hashes) {
  std::vector<PostingTable::Hit> hits;
  table.Find(hashes, std::numeric_limits<size_t>::max(), &hits);
  std::sort(hits.begin(), hits.end(), [](const auto& a, const auto& b) {
    return a.slot != b.slot ? a.slot < b.slot : a.query < b.query;
  });
  return hits;
}

std::vector<uint32_t> SlotsOf(const PostingTable& table, uint64_t hash) {
  std::vector<uint32_t> slots;
  for (const PostingTable::Hit& hit : Find(table, {hash})) slots.push_back(hit.slot);
  return slots;
}

TEST(PostingTableTest, AddFindRemove) {
  PostingTable table(64);
  const uint64_t a = Spread(1), b = Spread(2), c = Spread(3);
  EXPECT_THAT(Find(table, {a}), IsEmpty());
  table.Add(1, Hashes{a, b});
  table.Add(2, Hashes{b, c});
  EXPECT_EQ(table.hashes(), 3);
  std::vector<std::pair<uint32_t, int32_t>> hits;
  for (const PostingTable::Hit& hit : Find(table, {b, a, Spread(99)})) {
    hits.emplace_back(hit.slot, hit.query);
  }
  EXPECT_THAT(hits, ElementsAre(std::pair(1u, 0), std::pair(1u, 1), std::pair(2u, 0)));
  table.Remove(1, Hashes{a, b});
  table.Remove(1, Hashes{Spread(77)});  // never added
  EXPECT_THAT(SlotsOf(table, b), ElementsAre(2u));
  EXPECT_EQ(Find(table, {b})[0].references, 1);
  table.Remove(2, Hashes{b, c});
  EXPECT_EQ(table.hashes(), 0);
  EXPECT_THAT(Find(table, {a, b, c}), IsEmpty());
}

TEST(PostingTableTest, ExtremeHashesAndSlots) {
  PostingTable table(2);
  constexpr auto kLast = static_cast<uint32_t>(PostingTable::kMaxSlots - 1);
  for (const uint64_t hash : {uint64_t{0}, ~uint64_t{0}, ~uint64_t{0} >> 10, uint64_t{1} << 54}) {
    table.Add(0, Hashes{hash});
    table.Add(kLast, Hashes{hash});
    EXPECT_THAT(SlotsOf(table, hash), ElementsAre(0u, kLast));
    table.Remove(0, Hashes{hash});
    table.Remove(kLast, Hashes{hash});
  }
  EXPECT_EQ(table.hashes(), 0);
}

TEST(PostingTableTest, AFullHashCountsWithoutListing) {
  PostingTable table(3);
  const uint64_t hash = Spread(1);
  for (uint32_t slot = 0; slot < 5; ++slot) {
    table.Add(slot, Hashes{hash});
    EXPECT_EQ(Find(table, {hash})[0].references, static_cast<int32_t>(slot) + 1);
    EXPECT_EQ(SlotsOf(table, hash).size(), std::min<size_t>(3, slot + 1));
  }
  table.Remove(1, Hashes{hash});  // a place becomes free
  EXPECT_EQ(Find(table, {hash})[0].references, 4);
  table.Add(9, Hashes{hash});
  EXPECT_THAT(SlotsOf(table, hash), ElementsAre(0u, 2u, 9u));
  EXPECT_EQ(Find(table, {hash})[0].references, 5);
  for (const uint32_t slot : {0u, 2u, 9u}) table.Remove(slot, Hashes{hash});
  EXPECT_THAT(SlotsOf(table, hash), IsEmpty());  // the others were never listed
  EXPECT_EQ(table.hashes(), 1);
  for (const uint32_t slot : {3u, 4u}) table.Remove(slot, Hashes{hash});
  EXPECT_EQ(table.hashes(), 0);
}

TEST(PostingTableTest, StopsAtTheMostHits) {
  PostingTable table(64);
  Hashes hashes;
  for (uint64_t i = 0; i < 100; ++i) hashes.push_back(Spread(i));
  table.Add(1, hashes);
  std::vector<PostingTable::Hit> hits;
  table.Find(hashes, 0, &hits);
  EXPECT_THAT(hits, IsEmpty());
  table.Find(hashes, 10, &hits);
  EXPECT_GE(hits.size(), 10u);
  EXPECT_LT(hits.size(), 100u);
}

// Thousands of adds and removes against a plain map, with hashes that differ in their lowest tag
// bits, so that shards are crowded, and more references of some hashes than are listed.
TEST(PostingTableTest, AgreesWithAMapOverManyChanges) {
  constexpr size_t kCap = 4;
  std::mt19937_64 random(5);
  PostingTable table(kCap);
  std::map<uint64_t, std::set<uint32_t>> model;
  std::vector<Hashes> held(600);
  for (int round = 0; round < 6000; ++round) {
    const auto slot = static_cast<uint32_t>(random() % held.size());
    if (held[slot].empty()) {
      std::set<uint64_t> hashes;
      for (int i = 0; i < 30; ++i) {
        hashes.insert(random() % 3 == 0 ? (random() % 200) << 22 : Spread(random() % 4000));
      }
      held[slot].assign(hashes.begin(), hashes.end());
      table.Add(slot, held[slot]);
      for (const uint64_t hash : hashes) model[hash].insert(slot);
    } else {
      table.Remove(slot, held[slot]);
      for (const uint64_t hash : held[slot]) {
        model[hash].erase(slot);
        if (model[hash].empty()) model.erase(hash);
      }
      held[slot].clear();
    }
  }
  EXPECT_EQ(table.hashes(), static_cast<int64_t>(model.size()));
  for (const auto& [hash, slots] : model) {
    const std::vector<PostingTable::Hit> hits = Find(table, {hash});
    EXPECT_LE(hits.size(), kCap);
    for (const PostingTable::Hit& hit : hits) {
      EXPECT_TRUE(slots.contains(hit.slot));
      EXPECT_EQ(hit.references, static_cast<int32_t>(slots.size()));
    }
  }
  for (uint32_t slot = 0; slot < held.size(); ++slot) table.Remove(slot, held[slot]);
  EXPECT_EQ(table.hashes(), 0);
}

TEST(PostingTableTest, MemoryFollowsTheContent) {
  PostingTable table(64);
  const int64_t empty = table.bytes();
  constexpr int64_t kEntries = 300000;
  for (int64_t first = 0; first < kEntries; first += 1000) {
    Hashes hashes;
    for (int64_t i = first; i < first + 1000; ++i)
      hashes.push_back(Spread(static_cast<uint64_t>(i)));
    table.Add(static_cast<uint32_t>(first / 1000), hashes);
  }
  EXPECT_LE(table.bytes() - empty, kEntries * 10);  // 8 bytes each at 0.8 or more
}

TEST(PostingTableTest, ReadersAndWritersTogether) {
  PostingTable table(64);
  Hashes fixed;
  for (uint64_t i = 0; i < 50; ++i) fixed.push_back(Spread(i));
  table.Add(1000, fixed);
  const auto write = [&](uint32_t first) {
    for (uint32_t slot = first; slot < first + 60; ++slot) {
      Hashes hashes = {fixed[slot % 50]};
      for (uint64_t i = 0; i < 200; ++i) hashes.push_back(Spread(1000 * (slot + uint64_t{1}) + i));
      table.Add(slot, hashes);
      if (slot % 2 == 0) table.Remove(slot, hashes);
    }
  };
  const auto read = [&] {
    for (int i = 0; i < 100; ++i) {
      const auto hits = Find(table, fixed);
      EXPECT_EQ(
          std::count_if(hits.begin(), hits.end(), [](const auto& h) { return h.slot == 1000; }),
          50);
    }
  };
  std::thread threads[] = {std::thread(write, 0), std::thread(write, 100), std::thread(read),
                           std::thread(read)};
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(table.hashes(), 50 + 60 * 200);
}

}  // namespace
}  // namespace semshare
