// Puts and deletes references forever, until it is killed, and says on standard output what has
// been made durable: "put N" after a put, "deleting N" before and "deleted N" after a deletion.
// Usage: crash_child <path> <first number>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/storage/crash_workload.h"

namespace semshare::testing {
namespace {

// One write of less than a pipe's atomic size: a line is there whole or not at all.
void Say(const std::string& word, uint64_t number) {
  const std::string line = absl::StrCat(word, " ", number, "\n");
  if (write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    std::exit(1);
  }
}

absl::Status PutOne(CrashBroker* broker, uint64_t number) {
  const Manifest manifest = CrashManifest(number);
  SEMSHARE_ASSIGN_OR_RETURN(
      std::vector<ChunkRef> refs,
      PutChunks(broker->store.get(), broker->backend.get(), CrashMetas(manifest)));
  SEMSHARE_RETURN_IF_ERROR(broker->store->Persist(manifest.chunks));
  return broker->catalog->Put(manifest, std::move(refs)).status();
}

absl::Status Run(const std::string& path, uint64_t first) {
  SEMSHARE_ASSIGN_OR_RETURN(CrashBroker broker, OpenCrashBroker(path));
  for (uint64_t number = first;; ++number) {
    SEMSHARE_RETURN_IF_ERROR(PutOne(&broker, number));
    Say("put", number);
    if (number < 3 || number % 3 != 0) continue;
    const Manifest old = CrashManifest(number - 3);
    if (broker.catalog->Find(old.ns, old.id) == nullptr) continue;
    Say("deleting", number - 3);
    SEMSHARE_RETURN_IF_ERROR(broker.catalog->Delete(old.ns, old.id).status());
    Say("deleted", number - 3);
    SEMSHARE_RETURN_IF_ERROR(broker.store->CollectGarbage());
  }
}

}  // namespace
}  // namespace semshare::testing

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const absl::Status status = semshare::testing::Run(argv[1], std::strtoull(argv[2], nullptr, 10));
  std::fprintf(stderr, "crash_child: %s\n", status.ToString().c_str());
  return 1;
}
