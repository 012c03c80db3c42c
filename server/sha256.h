// SHA-256 (FIPS 180-4) by OpenSSL, in pieces. Not thread-safe: one object, one thread.
#ifndef SEMSHARE_SERVER_SHA256_H_
#define SEMSHARE_SERVER_SHA256_H_

#include <memory>
#include <string>
#include <string_view>

namespace semshare {

inline constexpr size_t kSha256Bytes = 32;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::string_view bytes);
  // 32 bytes. REQUIRES: called once, last.
  std::string Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace semshare

#endif  // SEMSHARE_SERVER_SHA256_H_
