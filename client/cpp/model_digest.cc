#include "client/cpp/model_digest.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <openssl/sha.h>

#include <bit>

namespace semshare::client {
namespace {

static_assert(std::endian::native == std::endian::little, "digests are of little-endian floats");

constexpr char kFingerprintDomain[] = "semshare.ModelSpec.v1";

std::string Sha256(const void* data, size_t bytes) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(static_cast<const unsigned char*>(data), bytes,
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

}  // namespace

std::string FingerprintOf(const v1::ModelSpec& spec) {
  v1::ModelSpec cleared = spec;
  cleared.clear_fingerprint();
  // The zero byte that ends the literal is part of the digest.
  std::string bytes(kFingerprintDomain, sizeof(kFingerprintDomain));
  std::string message;
  {
    google::protobuf::io::StringOutputStream stream(&message);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    cleared.SerializeToCodedStream(&coded);
  }
  bytes += message;
  return Sha256(bytes.data(), bytes.size());
}

void SealSpec(absl::Span<const float> embedding_table, absl::Span<const float> token_weights,
              v1::ModelSpec* spec) {
  spec->set_embedding_digest(
      Sha256(embedding_table.data(), embedding_table.size() * sizeof(float)));
  spec->clear_token_weights_digest();
  if (!token_weights.empty()) {
    spec->set_token_weights_digest(
        Sha256(token_weights.data(), token_weights.size() * sizeof(float)));
  }
  spec->set_fingerprint(FingerprintOf(*spec));
}

}  // namespace semshare::client
