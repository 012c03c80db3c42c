// cuBLAS, loaded when the backend is made: a program with the CUDA backend starts on machines that
// have neither a GPU nor the half gigabyte of this library, and says what is missing when asked for
// the backend.
//
// CublasLibrary is thread-safe once made. A CublasHandle belongs to one lane, and so to one thread
// at a time; it keeps the library alive.
#ifndef SEMSHARE_KERNELS_CUDA_CUBLAS_H_
#define SEMSHARE_KERNELS_CUDA_CUBLAS_H_

#include <cublas_v2.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace semshare {

class CublasLibrary {
 public:
  // FAILED_PRECONDITION with the loader's words if the library or a function is not there.
  static absl::StatusOr<std::shared_ptr<const CublasLibrary>> Load(const std::string& name);
  ~CublasLibrary();
  CublasLibrary(const CublasLibrary&) = delete;
  CublasLibrary& operator=(const CublasLibrary&) = delete;

  // OK, or INTERNAL (RESOURCE_EXHAUSTED where memory lacks) with what was attempted.
  absl::Status ToStatus(cublasStatus_t status, const char* attempted) const;

  decltype(&cublasCreate) create = nullptr;
  decltype(&cublasDestroy) destroy = nullptr;
  decltype(&cublasSetStream) set_stream = nullptr;
  decltype(&cublasSetWorkspace) set_workspace = nullptr;
  decltype(&cublasSetMathMode) set_math_mode = nullptr;
  decltype(&cublasSgemm_64) sgemm = nullptr;
  decltype(&cublasGetStatusString) status_string = nullptr;

 private:
  explicit CublasLibrary(void* library) : library_(library) {}

  void* const library_;
};

// A row-major product: c[m][n] = a[m][k] * b[k][n], in fp32. All in memory that the device reaches.
struct Product {
  const float* a = nullptr;
  const float* b = nullptr;
  float* c = nullptr;
  int64_t m = 0, n = 0, k = 0;
};

// Bound to one stream for life, with a workspace of the caller's.
class CublasHandle {
 public:
  static absl::StatusOr<CublasHandle> Create(std::shared_ptr<const CublasLibrary> library,
                                             cudaStream_t stream, void* workspace,
                                             int64_t workspace_bytes);
  CublasHandle() = default;
  CublasHandle(CublasHandle&& other) noexcept;
  CublasHandle& operator=(CublasHandle&& other) noexcept;
  ~CublasHandle();

  // Queues the product. REQUIRES: n, k >= 1.
  absl::Status Multiply(const Product& product);

 private:
  std::shared_ptr<const CublasLibrary> library_;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_CUBLAS_H_
