// Conformance of projection, signatures, Hamming scans and token codes, against plain loops.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/backend.h"
#include "tests/kernels/backend_cases.h"

namespace semshare {
namespace {

class BackendCodesTest : public BackendTest {
 protected:
  std::vector<float> Floats(int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random_);
    return values;
  }
  std::vector<uint64_t> Codes(int64_t count) {
    std::vector<uint64_t> values(static_cast<size_t>(count));
    for (uint64_t& value : values) value = random_();
    return values;
  }

  std::mt19937_64 random_{99};
};

int Hamming(const uint64_t* a, const uint64_t* b, int words) {
  int distance = 0;
  for (int i = 0; i < words; ++i) distance += std::popcount(a[i] ^ b[i]);
  return distance;
}

TEST_P(BackendCodesTest, ProjectMatchesFp64) {
  for (const bool with_bias : {false, true}) {
    const int64_t m = 333, n = 70, k = 129;
    const std::vector<float> a = Floats(m * k), b = Floats(k * n), bias = Floats(n);
    const Buffer da = Upload(a), db = Upload(b), dbias = Upload(bias);
    const Buffer dc = NewDeviceMemory(m * n * 4);
    ProjectArgs args{da.span(), db.span(), with_bias ? dbias.span() : MemorySpan{}, dc.span(), m,
                     n,         k};
    ASSERT_EQ(backend_->EnqueueProject(lane_, args), absl::OkStatus());
    const std::vector<float> c = Download<float>(dc, m * n);
    for (int64_t i = 0; i < m * n; ++i) {
      double sum = with_bias ? -double{bias[static_cast<size_t>(i % n)]} : 0;
      for (int64_t j = 0; j < k; ++j) {
        sum +=
            double{a[static_cast<size_t>(i / n * k + j)]} * b[static_cast<size_t>(j * n + i % n)];
      }
      ASSERT_NEAR(c[static_cast<size_t>(i)], sum, 1e-4);
    }
  }
}

TEST_P(BackendCodesTest, SignaturesAreSignsOfWeightedSums) {
  const int64_t vocab = 500, bits = 128, count = 700;
  const std::vector<float> projected = Floats(vocab * bits);
  const std::vector<float> weights = Floats(vocab);
  std::vector<uint32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<uint32_t>(random_() % vocab));
  const std::vector<int64_t> windows = {0, 700, 0, 256, 256, 512, 512, 700, 5, 6, 9, 9};
  const int64_t window_count = 6;
  const Buffer dprojected = Upload(projected), dweights = Upload(weights);
  const Buffer codes = NewDeviceMemory(window_count * bits / 8);
  SignatureArgs args;
  args.projected = dprojected.span();
  args.weights = dweights.span();
  args.vocab = vocab;
  args.bits = bits;
  args.ids = HostSpan(ids.data(), count);
  args.count = count;
  args.windows = HostSpan(windows.data(), 2 * window_count);
  args.window_count = window_count;
  args.codes = codes.span();
  ASSERT_EQ(backend_->EnqueueSignature(lane_, args), absl::OkStatus());
  const std::vector<uint64_t> actual = Download<uint64_t>(codes, window_count * bits / 64);
  int64_t compared = 0;
  for (int64_t w = 0; w < window_count; ++w) {
    for (int64_t bit = 0; bit < bits; ++bit) {
      double sum = 0;
      for (int64_t i = windows[static_cast<size_t>(2 * w)];
           i < windows[static_cast<size_t>(2 * w + 1)]; ++i) {
        const uint32_t id = ids[static_cast<size_t>(i)];
        sum += double{weights[id]} * projected[id * bits + static_cast<size_t>(bit)];
      }
      if (sum != 0 && std::abs(sum) < 1e-3) continue;  // a device may sum in fp32
      const uint64_t word = actual[static_cast<size_t>((w * bits + bit) / 64)];
      ASSERT_EQ((word >> (bit % 64)) & 1, sum > 0 ? 1U : 0U) << "window " << w << " bit " << bit;
      ++compared;
    }
  }
  EXPECT_GT(compared, window_count * bits * 9 / 10);
  // A prompt and its windows alone, which a backend may sum together, give the same codes.
  const Buffer again = NewDeviceMemory(4 * bits / 8);
  args.window_count = 4;
  args.windows = HostSpan(windows.data(), 8);
  args.codes = again.span();
  ASSERT_EQ(backend_->EnqueueSignature(lane_, args), absl::OkStatus());
  const std::vector<uint64_t> parts = Download<uint64_t>(again, 4 * bits / 64);
  EXPECT_TRUE(std::equal(parts.begin(), parts.end(), actual.begin()));
}

TEST_P(BackendCodesTest, HammingTopKMatchesBruteForce) {
  struct Shape {
    int64_t count;
    int32_t words;
    int32_t k;
  };
  for (const Shape& shape : {Shape{40000, 4, 8}, Shape{1000, 1, 64}, Shape{130, 3, 1},
                             Shape{64, 4, 64}, Shape{0, 4, 2}, Shape{5, 4, 8}}) {
    SCOPED_TRACE(shape.count);
    std::vector<uint64_t> codes = Codes(shape.count * shape.words);
    // Few distinct values, so that there are many ties.
    if (shape.words == 1) {
      for (uint64_t& code : codes) code &= 7;
    }
    std::vector<uint64_t> live = Codes((shape.count + 63) / 64);  // also beyond the last code
    if (live.size() > 3) live[2] = 0;
    if (live.size() > 3) live[3] = ~uint64_t{0};
    const int64_t query_count = 3;
    const std::vector<uint64_t> queries = Codes(query_count * shape.words);
    const Buffer dcodes = Upload(codes), dlive = Upload(live), dqueries = Upload(queries);
    const Buffer indices = NewDeviceMemory(query_count * shape.k * 8);
    const Buffer distances = NewDeviceMemory(query_count * shape.k * 4);
    const HammingTopKArgs args{dcodes.span(), shape.count,     shape.words,
                               dlive.span(),  dqueries.span(), query_count,
                               shape.k,       indices.span(),  distances.span()};
    ASSERT_EQ(backend_->EnqueueHammingTopK(lane_, args), absl::OkStatus());
    const auto actual = Download<int64_t>(indices, query_count * shape.k);
    const auto actual_distances = Download<int32_t>(distances, query_count * shape.k);
    for (int64_t query = 0; query < query_count; ++query) {
      std::vector<std::pair<int, int64_t>> all;
      for (int64_t i = 0; i < shape.count; ++i) {
        if (((live[static_cast<size_t>(i / 64)] >> (i % 64)) & 1) == 0) continue;
        all.emplace_back(Hamming(&codes[static_cast<size_t>(i * shape.words)],
                                 &queries[static_cast<size_t>(query * shape.words)], shape.words),
                         i);
      }
      std::sort(all.begin(), all.end());
      for (int32_t i = 0; i < shape.k; ++i) {
        const size_t at = static_cast<size_t>(query * shape.k + i);
        if (static_cast<size_t>(i) < all.size()) {
          ASSERT_EQ(actual[at], all[static_cast<size_t>(i)].second) << query << " " << i;
          ASSERT_EQ(actual_distances[at], all[static_cast<size_t>(i)].first);
        } else {
          ASSERT_EQ(actual[at], -1);
        }
      }
    }
  }
}

// Every backend may look at everything; none may miss what is near in the first word, too, or
// offer what is not live.
TEST_P(BackendCodesTest, HammingTopKWithAShortlistFindsWhatIsNear) {
  constexpr int64_t kCount = 20011;
  constexpr int32_t kWords = 4;
  const std::vector<uint64_t> codes = Codes(kCount * kWords);
  std::vector<uint64_t> first_words;
  for (int64_t i = 0; i < kCount; ++i)
    first_words.push_back(codes[static_cast<size_t>(i) * kWords]);
  std::vector<uint64_t> live((kCount + 63) / 64, ~uint64_t{0});
  live[1] = 0;
  live[2] = 0b100;
  std::vector<uint64_t> queries;
  const std::vector<int64_t> wanted = {0, 130, 9000, kCount - 1};
  for (const int64_t i : wanted) {
    for (int32_t w = 0; w < kWords; ++w) {
      queries.push_back(codes[static_cast<size_t>(i * kWords + w)] ^ 0b10011);
    }
  }
  const auto query_count = static_cast<int64_t>(wanted.size());
  const Buffer dcodes = Upload(codes);
  const Buffer indices = NewDeviceMemory(query_count * 2 * 8);
  const Buffer distances = NewDeviceMemory(query_count * 2 * 4);
  HammingTopKArgs args{dcodes.span(), kCount, kWords, HostSpan(live.data(), (kCount + 63) / 64)};
  args.queries = HostSpan(queries.data(), query_count * kWords);
  args.query_count = query_count;
  args.k = 2;
  args.indices = indices.span();
  args.distances = distances.span();
  args.first_words = HostSpan(first_words.data(), kCount);
  args.shortlist = 500;
  ASSERT_EQ(backend_->EnqueueHammingTopK(lane_, args), absl::OkStatus());
  const auto found = Download<int64_t>(indices, query_count * 2);
  const auto near = Download<int32_t>(distances, query_count * 2);
  for (size_t q = 0; q < wanted.size(); ++q) {
    EXPECT_EQ(found[2 * q], wanted[q]);
    EXPECT_EQ(near[2 * q], 3 * kWords);
    EXPECT_TRUE(found[2 * q + 1] < 64 || found[2 * q + 1] == 130 || found[2 * q + 1] >= 192);
  }
  args.first_words = HostSpan(first_words.data(), kCount - 1);
  EXPECT_TRUE(absl::IsInvalidArgument(backend_->EnqueueHammingTopK(lane_, args)));
  args.shortlist = -1;
  EXPECT_TRUE(absl::IsInvalidArgument(backend_->EnqueueHammingTopK(lane_, args)));
  args.shortlist = 0;
  EXPECT_EQ(backend_->EnqueueHammingTopK(lane_, args), absl::OkStatus());
  EXPECT_EQ(Download<int64_t>(indices, query_count * 2)[0], wanted[0]);
}

TEST_P(BackendCodesTest, NearestCodeMatchesBruteForce) {
  for (const int32_t words : {1, 4, 5}) {
    const int64_t count = 900, query_count = 300;
    std::vector<uint64_t> codes = Codes(count * words);
    const std::vector<uint64_t> queries = Codes(query_count * words);
    for (int64_t i = 0; i + words < count * words; i += 3 * words) {
      std::copy_n(&codes[static_cast<size_t>(i)], words, &codes[static_cast<size_t>(i) + words]);
    }
    std::vector<int64_t> windows;
    for (int64_t query = 0; query < query_count; ++query) {
      const int64_t begin = static_cast<int64_t>(random_() % 880);
      windows.push_back(begin);
      windows.push_back(query % 10 == 0 ? begin : begin + static_cast<int64_t>(random_() % 20));
    }
    windows[2] = 0;
    windows[3] = count;
    const Buffer dcodes = Upload(codes), dqueries = Upload(queries), dwindows = Upload(windows);
    const Buffer indices = NewDeviceMemory(query_count * 8);
    const Buffer distances = NewDeviceMemory(query_count * 4);
    const NearestCodeArgs args{dqueries.span(), query_count,     dcodes.span(),  count,
                               words,           dwindows.span(), indices.span(), distances.span()};
    ASSERT_EQ(backend_->EnqueueNearestCode(lane_, args), absl::OkStatus());
    const auto actual = Download<int64_t>(indices, query_count);
    const auto actual_distances = Download<int32_t>(distances, query_count);
    for (int64_t query = 0; query < query_count; ++query) {
      int best = std::numeric_limits<int>::max();
      int64_t index = -1;
      for (int64_t i = windows[static_cast<size_t>(2 * query)];
           i < windows[static_cast<size_t>(2 * query + 1)]; ++i) {
        const int distance = Hamming(&codes[static_cast<size_t>(i * words)],
                                     &queries[static_cast<size_t>(query * words)], words);
        if (distance < best) {
          best = distance;
          index = i;
        }
      }
      ASSERT_EQ(actual[static_cast<size_t>(query)], index) << query;
      if (index >= 0) {
        ASSERT_EQ(actual_distances[static_cast<size_t>(query)], best);
      }
    }
  }
}

TEST_P(BackendCodesTest, TokenCodesAreSignsOfRotatedEmbeddings) {
  const int64_t vocab = 50, count = 200;
  const int32_t width = 32, bits = 192;
  const std::vector<float> table = Floats(vocab * width), matrix = Floats(width * bits);
  std::vector<uint32_t> ids;
  std::vector<int64_t> positions;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<uint32_t>(random_() % vocab));
    positions.push_back(i == 7 ? 100000 : i * 3 - 5);
  }
  const Buffer dtable = Upload(table), dmatrix = Upload(matrix), dids = Upload(ids);
  const Buffer dpositions = Upload(positions), codes = NewDeviceMemory(count * bits / 8);
  TokenCodesArgs args;
  args.table = dtable.span();
  args.vocab = vocab;
  args.width = width;
  args.matrix = dmatrix.span();
  args.bits = bits;
  args.ids = dids.span();
  args.positions = dpositions.span();
  args.count = count;
  args.theta = 1e4;
  args.codes = codes.span();
  ASSERT_EQ(backend_->EnqueueTokenCodes(lane_, args), absl::OkStatus());
  const auto actual = Download<uint64_t>(codes, count * bits / 64);
  int64_t compared = 0;
  for (int64_t i = 0; i < count; ++i) {
    std::vector<double> row(static_cast<size_t>(width));
    const float* embedding = &table[ids[static_cast<size_t>(i)] * static_cast<size_t>(width)];
    for (int32_t j = 0; j < width; j += 2) {
      const double angle =
          static_cast<double>(positions[static_cast<size_t>(i)]) / std::pow(1e4, double(j) / width);
      row[static_cast<size_t>(j)] =
          embedding[j] * std::cos(angle) - embedding[j + 1] * std::sin(angle);
      row[static_cast<size_t>(j) + 1] =
          embedding[j] * std::sin(angle) + embedding[j + 1] * std::cos(angle);
    }
    for (int32_t bit = 0; bit < bits; ++bit) {
      double dot = 0;
      for (int64_t j = 0; j < width; ++j) {
        dot += row[static_cast<size_t>(j)] * matrix[static_cast<size_t>(j * bits + bit)];
      }
      if (std::abs(dot) < 1e-4) continue;
      const uint64_t word = actual[static_cast<size_t>((i * bits + bit) / 64)];
      ASSERT_EQ((word >> (bit % 64)) & 1, dot > 0 ? 1U : 0U) << "token " << i << " bit " << bit;
      ++compared;
    }
  }
  EXPECT_GT(compared, count * bits * 9 / 10);
}

TEST_P(BackendCodesTest, BadArgumentsAreRefused) {
  HammingTopKArgs top_k;
  top_k.words = 4;
  top_k.k = 65;
  EXPECT_EQ(backend_->EnqueueHammingTopK(lane_, top_k).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend_->EnqueueProject(lane_, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend_->EnqueueSignature(lane_, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend_->EnqueueTokenCodes(lane_, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend_->EnqueueNearestCode(lane_, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Finish(), absl::OkStatus());
}

SEMSHARE_INSTANTIATE_BACKENDS(BackendCodesTest);

}  // namespace
}  // namespace semshare
