#include "kernels/peer_memory.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace semshare {
namespace {

std::string DeviceName(const std::array<char, 16>& uuid) {
  const std::string hex = absl::BytesToHexString(absl::string_view(uuid.data(), uuid.size()));
  return absl::StrCat("GPU-", hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20));
}

}  // namespace

absl::Status CheckPeerDevice(const std::array<char, 16>& own, const std::array<char, 16>& peers) {
  if (own == peers) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the memory is on ", DeviceName(peers), ", the broker on ", DeviceName(own)));
}

absl::Status PeerOpenError(absl::string_view error) {
  return absl::FailedPreconditionError(
      absl::StrCat("the driver can't open it (", error,
                   "): memory of cuMemCreate (expandable_segments), or another PID namespace?"));
}

absl::StatusOr<MemorySpan> PeerSpan(const PeerMemoryHandle& handle, uintptr_t opened,
                                    const MemorySpan& mapping) {
  const uintptr_t before = opened - mapping.address;
  if (mapping.bytes < 1 || before >= static_cast<uintptr_t>(mapping.bytes)) {
    return absl::InvalidArgumentError("the driver does not know the bounds of the allocation");
  }
  const int64_t room = mapping.bytes - static_cast<int64_t>(before);
  if (handle.offset < 0 || handle.bytes < 1 || handle.offset > room ||
      handle.bytes > room - handle.offset) {
    return absl::InvalidArgumentError(absl::StrCat("[", handle.offset, ", +", handle.bytes,
                                                   ") is not within the allocation's ", room,
                                                   " bytes"));
  }
  return mapping.Sub(static_cast<int64_t>(before) + handle.offset, handle.bytes);
}

}  // namespace semshare
