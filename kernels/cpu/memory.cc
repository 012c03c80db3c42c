#include "kernels/cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace semshare {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kHugePageBytes = size_t{2} << 20;

}  // namespace

absl::StatusOr<Buffer> AllocateHostMemory(MemoryKind kind, int64_t bytes) {
  if (bytes < 1) {
    return absl::InvalidArgumentError(absl::StrCat("bytes is ", bytes, ": expected at least 1"));
  }
  // With overcommit the system promises what it does not have, and kills the process on touch.
  const int64_t physical_bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  void* memory = nullptr;
  if (bytes <= physical_bytes) {
    const size_t alignment =
        static_cast<size_t>(bytes) >= kHugePageBytes ? kHugePageBytes : kAlignment;
    const size_t rounded = (static_cast<size_t>(bytes) + alignment - 1) / alignment * alignment;
    memory = std::aligned_alloc(alignment, rounded);
    if (memory != nullptr && alignment == kHugePageBytes) {
      madvise(memory, rounded, MADV_HUGEPAGE);  // advice: failure changes nothing
    }
  }
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot allocate ", bytes, " bytes of memory: the machine has ", physical_bytes));
  }
  std::memset(memory, 0, static_cast<size_t>(bytes));
  return Buffer(MemorySpan{reinterpret_cast<uintptr_t>(memory), bytes, kind},
                [](MemorySpan span) { std::free(reinterpret_cast<void*>(span.address)); });
}

}  // namespace semshare
