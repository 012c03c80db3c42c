#include "server/sha256.h"

#include <openssl/evp.h>

#include "kernels/base/status_macros.h"

namespace semshare {

struct Sha256::Context {
  EVP_MD_CTX* md = nullptr;
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  context_->md = EVP_MD_CTX_new();
  SEMSHARE_CHECK(context_->md != nullptr);
  SEMSHARE_CHECK(EVP_DigestInit_ex(context_->md, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_->md); }

void Sha256::Update(std::string_view bytes) {
  SEMSHARE_CHECK(EVP_DigestUpdate(context_->md, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::Finish() {
  std::string digest(kSha256Bytes, '\0');
  unsigned int size = 0;
  SEMSHARE_CHECK(EVP_DigestFinal_ex(context_->md, reinterpret_cast<unsigned char*>(digest.data()),
                                    &size) == 1);
  SEMSHARE_CHECK(size == kSha256Bytes);
  return digest;
}

}  // namespace semshare
