#include "kernels/cuda/cublas.h"

#include <dlfcn.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status_macros.h"

namespace semshare {
namespace {

// Where toolkits install it, for machines whose loader was not told.
constexpr const char* kToolkitFolder = "/usr/local/cuda/lib64/";

template <typename Function>
absl::Status Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("cuBLAS has no ", name));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CublasLibrary>> CublasLibrary::Load(const std::string& name) {
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  const char* const reason = library == nullptr ? dlerror() : nullptr;
  const std::string message = reason == nullptr ? "" : reason;
  if (library == nullptr && name.find('/') == std::string::npos) {
    library = dlopen((kToolkitFolder + name).c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("cannot load cuBLAS: ", message));
  }
  std::shared_ptr<CublasLibrary> loaded(new CublasLibrary(library));
  // The header renames functions to their versions; the library has the versions.
  SEMSHARE_RETURN_IF_ERROR(Find(library, "cublasCreate_v2", loaded->create));
  SEMSHARE_RETURN_IF_ERROR(Find(library, "cublasDestroy_v2", loaded->destroy));
  SEMSHARE_RETURN_IF_ERROR(Find(library, "cublasSetStream_v2", loaded->set_stream));
  SEMSHARE_RETURN_IF_ERROR(Find(library, "cublasSetWorkspace_v2", loaded->set_workspace));
  SEMSHARE_RETURN_IF_ERROR(Find(library, "cublasSetMathMode", loaded->set_math_mode));
  SEMSHARE_RETURN_IF_ERROR(Find(library, "cublasSgemm_v2_64", loaded->sgemm));
  SEMSHARE_RETURN_IF_ERROR(Find(library, "cublasGetStatusString", loaded->status_string));
  return loaded;
}

CublasLibrary::~CublasLibrary() { dlclose(library_); }

absl::Status CublasLibrary::ToStatus(cublasStatus_t status, const char* attempted) const {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message = absl::StrCat(attempted, ": ", status_string(status));
  if (status == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

absl::StatusOr<CublasHandle> CublasHandle::Create(std::shared_ptr<const CublasLibrary> library,
                                                  cudaStream_t stream, void* workspace,
                                                  int64_t workspace_bytes) {
  CublasHandle made;
  made.library_ = std::move(library);
  const CublasLibrary& blas = *made.library_;
  SEMSHARE_RETURN_IF_ERROR(blas.ToStatus(blas.create(&made.handle_), "cublasCreate"));
  SEMSHARE_RETURN_IF_ERROR(blas.ToStatus(blas.set_stream(made.handle_, stream), "cublasSetStream"));
  // After the stream: setting a stream takes the workspace away again.
  SEMSHARE_RETURN_IF_ERROR(blas.ToStatus(
      blas.set_workspace(made.handle_, workspace, static_cast<size_t>(workspace_bytes)),
      "cublasSetWorkspace"));
  // Signs of sums are what counts: full fp32, no TF32, whatever the environment asks for.
  SEMSHARE_RETURN_IF_ERROR(
      blas.ToStatus(blas.set_math_mode(made.handle_, CUBLAS_PEDANTIC_MATH), "cublasSetMathMode"));
  return made;
}

CublasHandle::CublasHandle(CublasHandle&& other) noexcept
    : library_(std::move(other.library_)), handle_(std::exchange(other.handle_, nullptr)) {}

CublasHandle& CublasHandle::operator=(CublasHandle&& other) noexcept {
  std::swap(library_, other.library_);
  std::swap(handle_, other.handle_);
  return *this;
}

CublasHandle::~CublasHandle() {
  if (handle_ != nullptr) static_cast<void>(library_->destroy(handle_));
}

absl::Status CublasHandle::Multiply(const Product& product) {
  if (product.m == 0) return absl::OkStatus();
  const float one = 1;
  const float zero = 0;
  // cuBLAS is column-major: to it these are the transposes, and the transpose of a product is the
  // product of the transposes in the other order.
  return library_->ToStatus(
      library_->sgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, product.n, product.m, product.k, &one,
                      product.b, product.n, product.a, product.k, &zero, product.c, product.n),
      "cublasSgemm");
}

}  // namespace semshare
