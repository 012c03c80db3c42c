// What a kernel finds wrong with a table in device memory, which the host could not check.
// Frozen only within a build. Thread-safe: pure functions.
#ifndef SEMSHARE_KERNELS_CUDA_DEVICE_ERROR_H_
#define SEMSHARE_KERNELS_CUDA_DEVICE_ERROR_H_

#include <cstdint>

namespace semshare {

enum class DeviceError : int32_t { kNone = 0, kRow = 1, kId = 2, kWindow = 3 };

constexpr const char* DeviceErrorText(DeviceError error) {
  switch (error) {
    case DeviceError::kNone:
      return "no error";
    case DeviceError::kRow:
      return "rows in device memory name memory outside the source, the angles or the destination";
    case DeviceError::kId:
      return "ids in device memory are outside the vocabulary";
    case DeviceError::kWindow:
      return "windows in device memory are outside the codes or ids";
  }
  return "unknown error of a kernel";
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CUDA_DEVICE_ERROR_H_
