// TinyEngine: an engine small enough to write down, for tests of the whole broker. Every token's K
// is a fixed row turned to its position, its V a fixed row, at every layer: what a real model does
// to one-token prompts. So the K that realignment must give is known from the engine itself.
// Thread-safe: immutable.
#ifndef SEMSHARE_TESTS_SERVER_TINY_ENGINE_H_
#define SEMSHARE_TESTS_SERVER_TINY_ENGINE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/model.h"
#include "server/model_registry.h"
#include "server/upload.h"

namespace semshare {

class TinyEngine {
 public:
  static constexpr int kLayers = 3;
  static constexpr int kHeads = 2;
  static constexpr int kWidth = 16;
  static constexpr int kVocab = 499;
  static constexpr int kEmbedding = 32;
  static constexpr int kMaxPositions = 4096;

  // Engines with other seeds have other weights.
  explicit TinyEngine(uint64_t seed);

  const std::string& fingerprint() const { return info_.fingerprint; }
  const ModelInfo& info() const { return info_; }
  ModelRegistration Registration() const;
  // With K rotated by another pairing than the descriptor says.
  ModelRegistration LyingRegistration() const;
  ModelInfoParser Parser() const;

  // The rows [tokens][heads][width] of one plane (0: k, 1: v) for tokens at positions.
  std::vector<float> Rows(int layer, int plane, const std::vector<uint32_t>& ids,
                          const std::vector<int64_t>& positions) const;

 private:
  std::vector<float> Row(int layer, int plane, uint32_t id, int64_t position, bool lie) const;
  std::vector<ProbeSample> Probe(bool lie) const;

  uint64_t seed_;
  ModelInfo info_;
  std::vector<float> table_;
};

// Distinct pseudo-random ids, the same for the same seed.
std::vector<uint32_t> RandomIds(int64_t count, uint64_t seed);

}  // namespace semshare

#endif  // SEMSHARE_TESTS_SERVER_TINY_ENGINE_H_
