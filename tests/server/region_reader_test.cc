// One code path writes a match into the memory layout of every engine: each case describes the
// layout by strides, and is checked element by element against the frames of the inline reader.
#include "server/region_reader.h"

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/base/status_macros.h"
#include "tests/server/broker_harness.h"

namespace semshare::testing {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;
using Slots = std::vector<int64_t>;

constexpr int kLayers = TinyEngine::kLayers;
constexpr int kHeads = TinyEngine::kHeads;
constexpr int kWidth = TinyEngine::kWidth;
constexpr int64_t kTokens = 500;
constexpr int64_t kBlock = 16;
constexpr int64_t kBlocks = 64;
constexpr int64_t kLastMatched = 549;  // the question's 20 tokens are not asked for
constexpr float kUntouched = -12345;

// An engine's KV memory: a dense tensor of named dimensions, [NB][2][BS] and so on. The dimensions
// that a plane's view walks are block, token, head and element; layer and kind (k, v) are fixed.
struct EngineLayout {
  std::string name;
  std::vector<std::pair<char, int64_t>> dims;  // L, K, B, S (token in block), H, E; outermost first

  int64_t Extent() const {
    int64_t extent = 1;
    for (const auto& [dim, size] : dims) extent *= size;
    return extent;
  }
  // Elements that a step along `dim` moves; 0 if the layout does not have it.
  int64_t Stride(char dim) const {
    int64_t stride = 1;
    for (auto it = dims.rbegin(); it != dims.rend(); ++it) {
      if (it->first == dim) return stride;
      stride *= it->second;
    }
    return 0;
  }
  int64_t Size(char dim) const {
    for (const auto& [each, size] : dims) {
      if (each == dim) return size;
    }
    return 1;
  }
};

std::vector<EngineLayout> AllLayouts() {
  const std::pair<char, int64_t> l{'L', kLayers}, k{'K', 2}, b{'B', kBlocks}, s{'S', kBlock},
      h{'H', kHeads}, e{'E', kWidth}, t{'B', kTokens + 100}, n{'B', kBlocks * kBlock};
  return {
      {"vllm_flash_nhd", {l, k, b, s, h, e}},
      {"vllm_flash_hnd", {l, k, b, h, s, e}},
      {"vllm_flashinfer_nhd", {l, b, k, s, h, e}},
      {"vllm_flashinfer_hnd", {l, b, k, h, s, e}},
      {"vllm_cross_layer", {b, l, k, s, h, e}},
      // K and V of a head side by side: [NB][NH][BS][2 * HS].
      {"vllm_blocks_first_fused", {l, b, h, s, k, e}},
      {"sglang", {k, l, n, h, e}},
      {"tensorrt_llm_cross_layer", {b, l, k, h, s, e}},
      {"transformers", {l, k, h, t, e}},
      {"contiguous_rows", {l, k, t, h, e}},
      // K transposed within its page, as vLLM keeps it on CPUs: [NB][NH][HS][BS].
      {"transposed_pages", {l, k, b, h, e, s}},
  };
}

class Memory {
 public:
  Memory(const EngineLayout& layout, Backend* backend)
      : layout_(layout),
        values_(static_cast<size_t>(layout.Extent()), kUntouched),
        registration_(*backend->RegisterHost(
            HostSpan(values_.data(), static_cast<int64_t>(values_.size())))) {}

  MemorySpan span() { return HostSpan(values_.data(), static_cast<int64_t>(values_.size())); }

  KvView View(std::vector<int64_t> slots) {
    KvView view;
    view.slots = std::move(slots);
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int plane = 0; plane < 2; ++plane) {
        const int64_t base = layer * layout_.Stride('L') + plane * layout_.Stride('K');
        PlaneView to;
        to.memory = HostSpan(values_.data() + base, layout_.Extent() - base);
        to.block_tokens = layout_.Size('S');
        to.block_stride = layout_.Stride('B') * kFloat;
        to.token_stride = layout_.Stride('S') * kFloat;
        to.head_stride = layout_.Stride('H') * kFloat;
        to.element_stride = layout_.Stride('E') * kFloat;
        view.planes.push_back(to);
      }
    }
    return view;
  }

  // By the layout's own dimensions, not by the view.
  float& At(int layer, int plane, int64_t slot, int64_t head, int64_t element) {
    const std::map<char, int64_t> index = {{'L', layer},
                                           {'K', plane},
                                           {'B', slot / layout_.Size('S')},
                                           {'S', slot % layout_.Size('S')},
                                           {'H', head},
                                           {'E', element}};
    int64_t at = 0;
    for (const auto& [dim, size] : layout_.dims) at = at * size + index.at(dim);
    return values_[static_cast<size_t>(at)];
  }

  int64_t Touched() const {
    return static_cast<int64_t>(values_.size()) -
           std::count(values_.begin(), values_.end(), kUntouched);
  }

 private:
  static constexpr int64_t kFloat = sizeof(float);
  const EngineLayout layout_;
  std::vector<float> values_;
  const Buffer registration_;
};

class RegionReaderTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  RegionReaderTest() : harness_(GetParam()) {
    SEMSHARE_CHECK(harness_.RegisterModel().ok());
    const Ids document = RandomIds(kTokens, 1);
    SEMSHARE_CHECK(harness_.Store(harness_.Put(document)).ok());
    target_ = RandomIds(70, 2);
    target_.insert(target_.end(), document.begin(), document.end());
    match_ = *harness_.Match(harness_.Find(target_));
    for (const Segment& segment : match_.lease->segments) {
      for (int64_t i = 0; i < segment.tokens; ++i) targets_.push_back(segment.target_begin + i);
    }
    SEMSHARE_CHECK(targets_.back() == kLastMatched);
  }

  absl::Status Run(KvView view, int64_t layer_begin = 0, int64_t layer_end = 0) {
    SEMSHARE_ASSIGN_OR_RETURN(const std::unique_ptr<RegionReader> reader,
                              RegionReader::Create(match_.lease, layer_begin, layer_end,
                                                   harness_.broker->arena(), std::move(view)));
    while (!reader->done()) {
      SEMSHARE_ASSIGN_OR_RETURN(Lane lane, harness_.backend->AcquireLane(absl::Seconds(10)));
      SEMSHARE_RETURN_IF_ERROR(reader->EnqueueLayer(harness_.backend.get(), lane).status());
      SEMSHARE_ASSIGN_OR_RETURN(const Event done, harness_.backend->Record(lane));
      SEMSHARE_RETURN_IF_ERROR(done.Wait());
    }
    return absl::OkStatus();
  }

  // Every row of the match is at its slot, and nothing else was written.
  void Verify(Memory* memory, const std::vector<int64_t>& slots) {
    int64_t rows_written = 0;
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int plane = 0; plane < 2; ++plane) {
        const std::vector<float> rows = *harness_.Read(match_.lease, layer, plane);
        for (size_t r = 0; r < targets_.size(); ++r) {
          const int64_t slot = slots.empty() ? targets_[r] : slots[targets_[r]];
          if (slot < 0) continue;
          ++rows_written;
          for (int64_t at = 0; at < kHeads * kWidth; ++at) {
            // Strided elements take a scalar path, which may round once more.
            ASSERT_NEAR(memory->At(layer, plane, slot, at / kWidth, at % kWidth),
                        rows[r * kHeads * kWidth + at], 1e-6)
                << "layer " << layer << " plane " << plane << " row " << r;
          }
        }
      }
    }
    EXPECT_EQ(memory->Touched(), rows_written * kHeads * kWidth);
  }

  // A block table that scatters the prompt's blocks, as an engine's allocator does.
  std::vector<int64_t> ScatteredSlots() const {
    std::vector<int64_t> slots(target_.size());
    for (size_t t = 0; t < slots.size(); ++t) {
      const int64_t block = static_cast<int64_t>(t) / kBlock;
      slots[t] = (block * 23 + 5) % kBlocks * kBlock + static_cast<int64_t>(t) % kBlock;
    }
    return slots;
  }

  BrokerHarness harness_;
  Ids target_;
  MatchResult match_;
  std::vector<int64_t> targets_;
};

TEST_P(RegionReaderTest, EveryEngineLayout) {
  for (const EngineLayout& layout : AllLayouts()) {
    SCOPED_TRACE(layout.name);
    const bool paged = layout.Size('S') > 1;
    const std::vector<int64_t> slots = paged ? ScatteredSlots() : std::vector<int64_t>{};
    Memory memory(layout, harness_.backend.get());
    ASSERT_EQ(Run(memory.View(slots)), absl::OkStatus());
    ASSERT_NO_FATAL_FAILURE(Verify(&memory, slots));
  }
}

// The planes of the first layer and a stride say the same as those of all layers.
TEST_P(RegionReaderTest, LayersByTheirStride) {
  for (const EngineLayout& layout : AllLayouts()) {
    SCOPED_TRACE(layout.name);
    const std::vector<int64_t> slots = layout.Size('S') > 1 ? ScatteredSlots() : Slots{};
    Memory memory(layout, harness_.backend.get());
    KvView view = memory.View(slots);
    view.layer_stride = layout.Stride('L') * static_cast<int64_t>(sizeof(float));
    // The whole memory, and the first layer's planes no longer than all layers leave room for.
    view.region = memory.span();
    for (PlaneView& plane : view.planes) plane.memory.bytes -= (kLayers - 1) * view.layer_stride;
    view.planes.resize(2);
    ASSERT_EQ(Run(view), absl::OkStatus());
    ASSERT_NO_FATAL_FAILURE(Verify(&memory, slots));

    for (const int64_t stride : {view.layer_stride + 4, -view.layer_stride - 4, INT64_MAX - 3}) {
      Memory untouched(layout, harness_.backend.get());
      KvView bad = untouched.View(slots);
      bad.region = untouched.span();
      bad.planes.resize(2);
      bad.layer_stride = stride;
      const absl::Status status = Run(std::move(bad));
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()), HasSubstr("target.layer_stride"));
      EXPECT_EQ(untouched.Touched(), 0);
    }
    view.planes.resize(1);
    EXPECT_THAT(std::string(Run(view).message()), HasSubstr("expected those of one layer, 2"));
  }
}

TEST_P(RegionReaderTest, NegativeSlotsAreLeftOut) {
  const EngineLayout layout = AllLayouts()[0];
  std::vector<int64_t> slots = ScatteredSlots();
  for (size_t t = 100; t < 300; ++t) slots[t] = -1;
  Memory memory(layout, harness_.backend.get());
  ASSERT_EQ(Run(memory.View(slots)), absl::OkStatus());
  ASSERT_NO_FATAL_FAILURE(Verify(&memory, slots));
}

TEST_P(RegionReaderTest, LayersOfTheCallAlone) {
  const EngineLayout layout = AllLayouts().front();
  Memory memory(layout, harness_.backend.get());
  KvView view = memory.View(ScatteredSlots());
  view.planes.erase(view.planes.begin(), view.planes.begin() + 2);
  view.planes.resize(2);
  ASSERT_EQ(Run(std::move(view), 1, 2), absl::OkStatus());
  EXPECT_EQ(memory.Touched(), static_cast<int64_t>(targets_.size()) * 2 * kHeads * kWidth);
}

// Each is one step outside of a view that is good, and nothing is written.
TEST_P(RegionReaderTest, BadViewsAreRefusedBeforeAnythingIsWritten) {
  using Spoil = std::function<void(KvView*)>;
  const std::vector<std::pair<std::string, Spoil>> cases = {
      {"target.planes: expected 6", [](KvView* view) { view->planes.pop_back(); }},
      {"target.planes: expected 6", [](KvView* view) { view->planes.resize(7); }},
      {"target.slots: expected 570", [](KvView* view) { view->slots.pop_back(); }},
      {"target.planes[5].block_tokens", [](KvView* view) { view->planes[5].block_tokens = 0; }},
      {"multiples of the element size", [](KvView* view) { view->planes[5].head_stride += 2; }},
      {"multiples of the element size", [](KvView* view) { view->planes[5].memory.address += 1; }},
      {"target.planes[5]: a row of block", [](KvView* view) { view->planes[5].memory.bytes = 4; }},
      {"target.planes[5]: a row of block",
       [](KvView* view) { view->planes[5].block_stride = INT64_MAX - 3; }},
      {"target.planes[5]: a row of block",
       [](KvView* view) { view->planes[5].token_stride = -4096; }},
      {"target.planes[5]: a row of block",
       [](KvView* view) { view->planes[5].element_stride = -4096; }},
      {"a row of block", [](KvView* view) { view->slots[kLastMatched] = kBlocks * kBlock; }},
      {"a row of block", [](KvView* view) { view->slots[kLastMatched] = INT64_MAX; }},
  };
  for (const auto& [message, spoil] : cases) {
    Memory memory(AllLayouts().front(), harness_.backend.get());
    KvView view = memory.View(ScatteredSlots());
    spoil(&view);
    const absl::Status status = Run(std::move(view));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_EQ(memory.Touched(), 0);
  }
}

// The last element of the last row lies exactly at the end of the plane's memory.
TEST_P(RegionReaderTest, BoundsAreExact) {
  EngineLayout layout{"exact",
                      {{'L', kLayers}, {'K', 2}, {'B', 570}, {'H', kHeads}, {'E', kWidth}}};
  Memory memory(layout, harness_.backend.get());
  KvView view = memory.View({});
  for (PlaneView& plane : view.planes)
    plane.memory.bytes = (kLastMatched + 1) * kHeads * kWidth * 4;
  ASSERT_EQ(Run(view), absl::OkStatus());
  view.planes[3].memory.bytes -= 4;
  EXPECT_EQ(Run(view).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(RegionReaderTest, BadLayersAreRefused) {
  Memory memory(AllLayouts().front(), harness_.backend.get());
  for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
           {-1, 2}, {2, 2}, {2, 1}, {0, kLayers + 1}, {kLayers, 0}}) {
    EXPECT_EQ(Run(memory.View({}), begin, end).code(), absl::StatusCode::kInvalidArgument);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, RegionReaderTest, ::testing::ValuesIn(BackendCases()),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace semshare::testing
