// Element types of KV rows. The values are stored on disk: do not change them.
// Thread-safe: constants and pure functions.
#ifndef SEMSHARE_KERNELS_DTYPE_H_
#define SEMSHARE_KERNELS_DTYPE_H_

#include <cstdint>

namespace semshare {

enum class Dtype : uint8_t { kFloat32 = 1, kFloat16 = 2, kBfloat16 = 3 };

constexpr int64_t DtypeBytes(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

constexpr const char* DtypeName(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return "float32";
    case Dtype::kFloat16:
      return "float16";
    case Dtype::kBfloat16:
      return "bfloat16";
  }
  return "unknown";
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_DTYPE_H_
