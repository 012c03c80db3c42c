// The tiny engine's model in the words of the contract. Thread-safe: pure functions.
#ifndef SEMSHARE_TESTS_SERVER_RPC_CONTRACT_ENGINE_H_
#define SEMSHARE_TESTS_SERVER_RPC_CONTRACT_ENGINE_H_

#include "semshare/v1/model.pb.h"
#include "server/rpc/convert.h"
#include "tests/server/tiny_engine.h"

namespace semshare::testing {

inline v1::ModelSpec ContractSpec(const TinyEngine& engine) {
  const ModelInfo& info = engine.info();
  v1::ModelSpec spec;
  spec.set_name(info.name);
  spec.set_layers(TinyEngine::kLayers);
  spec.set_dtype(v1::DTYPE_FLOAT32);
  v1::LayerGroup* group = spec.add_layer_groups();
  for (int layer = 0; layer < TinyEngine::kLayers; ++layer) {
    group->add_layers(static_cast<uint32_t>(layer));
  }
  for (const PlaneLayout& plane : info.layout->planes(0)) {
    v1::PlaneSpec* added = group->add_planes();
    added->set_name(plane.name);
    added->set_heads(static_cast<uint32_t>(plane.heads));
    added->set_width(static_cast<uint32_t>(plane.width));
    if (plane.rotary < 0) continue;
    const RotaryDescriptor& rotary = info.layout->rotaries()[plane.rotary];
    added->mutable_rotary()->set_width(static_cast<uint32_t>(rotary.width));
    added->mutable_rotary()->set_pairing(v1::ROTARY_PAIRING_HALF_SPLIT);
    added->mutable_rotary()->set_angle_precision(v1::ANGLE_PRECISION_FLOAT32);
    added->mutable_rotary()->set_magnitude(1);
    for (const double f : rotary.inv_freq) added->mutable_rotary()->add_inv_freq(f);
  }
  spec.set_vocab_size(TinyEngine::kVocab);
  spec.set_embedding_width(TinyEngine::kEmbedding);
  spec.set_max_positions(TinyEngine::kMaxPositions);
  spec.set_weights_digest(info.fingerprint);
  spec.set_embedding_digest(info.embedding_digest);
  spec.set_signature_version(kSignatureVersion);
  spec.set_fingerprint(ComputeFingerprint(spec));
  return spec;
}

}  // namespace semshare::testing

#endif  // SEMSHARE_TESTS_SERVER_RPC_CONTRACT_ENGINE_H_
