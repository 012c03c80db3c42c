// Kills a process that puts references, at any moment, and checks what is on disk: every reference
// that the process reported as durable is there bit for bit, and none is there by half.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <random>
#include <set>
#include <sstream>

#include "tests/storage/crash_workload.h"
#include "tests/storage/temp_dir.h"

extern char** environ;

namespace semshare::testing {
namespace {

constexpr int kRounds = 8;
constexpr int kMaxLines = 20;

enum class Fate { kPut, kDeleting, kDeleted };

class Child {
 public:
  Child(const std::string& path, uint64_t first) {
    int pipe_ends[2];
    SEMSHARE_CHECK(pipe2(pipe_ends, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
    const std::string number = std::to_string(first);
    std::string program = SEMSHARE_CRASH_CHILD;
    std::string path_argument = path;
    std::string number_argument = number;
    char* const arguments[] = {program.data(), path_argument.data(), number_argument.data(),
                               nullptr};
    SEMSHARE_CHECK(posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments, environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_ends[1]);
    output_ = fdopen(pipe_ends[0], "r");
    SEMSHARE_CHECK(output_ != nullptr);
  }
  ~Child() { fclose(output_); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // False at the end of the output.
  bool ReadLine(std::string* word, uint64_t* number) {
    char line[64];
    if (fgets(line, sizeof(line), output_) == nullptr) return false;
    std::istringstream stream(line);
    return static_cast<bool>(stream >> *word >> *number);
  }

  // Returns the status of waitpid.
  int Kill() {
    kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
    return status;
  }

 private:
  pid_t pid_ = 0;
  FILE* output_ = nullptr;
};

void Record(const std::string& word, uint64_t number, std::map<uint64_t, Fate>* fates) {
  if (word == "put") (*fates)[number] = Fate::kPut;
  if (word == "deleting") (*fates)[number] = Fate::kDeleting;
  if (word == "deleted") (*fates)[number] = Fate::kDeleted;
}

// Runs the child until a moment that `random` chooses. Returns how many lines it said.
int RunAndKill(const std::string& path, uint64_t first, std::mt19937_64* random,
               std::map<uint64_t, Fate>* fates) {
  Child child(path, first);
  std::string word;
  uint64_t number = 0;
  int lines = 0;
  const int wanted = static_cast<int>((*random)() % kMaxLines);
  while (lines < wanted && child.ReadLine(&word, &number)) {
    Record(word, number, fates);
    ++lines;
  }
  // Some work of varying length, so that the moment lies anywhere between two lines.
  volatile uint64_t spin = (*random)() % 3000000;
  while (spin > 0) spin = spin - 1;
  const int status = child.Kill();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the child ended by itself";
  while (child.ReadLine(&word, &number)) {
    Record(word, number, fates);
    ++lines;
  }
  return lines;
}

// Opens what the child left and compares it with what it said. Returns the references found.
std::vector<uint64_t> Verify(const std::string& path, uint64_t highest,
                             const std::map<uint64_t, Fate>& fates) {
  auto broker = OpenCrashBroker(path);
  EXPECT_TRUE(broker.ok()) << broker.status();
  if (!broker.ok()) return {};
  EXPECT_EQ(broker->catalog->bad_manifests(), 0);
  std::vector<uint64_t> found;
  std::set<std::string> chunk_keys;
  for (uint64_t number = 0; number <= highest; ++number) {
    const Manifest manifest = CrashManifest(number);
    const ReferencePtr reference = broker->catalog->Find(manifest.ns, manifest.id);
    const auto fate = fates.find(number);
    if (fate != fates.end() && fate->second == Fate::kPut) {
      EXPECT_NE(reference, nullptr) << "reference " << number << " is lost";
    }
    if (fate != fates.end() && fate->second == Fate::kDeleted) {
      EXPECT_EQ(reference, nullptr) << "reference " << number << " came back";
    }
    if (reference == nullptr) continue;
    found.push_back(number);
    EXPECT_EQ(reference->manifest.token_ids, manifest.token_ids);
    EXPECT_EQ(reference->manifest.alias, manifest.alias);
    EXPECT_EQ(broker->catalog->FindByAlias(manifest.ns, manifest.alias), reference);
    // All chunks are there and right, whether the put was reported or not.
    const std::vector<ChunkMeta> metas = CrashMetas(manifest);
    EXPECT_EQ(CheckPinned(broker->store.get(), broker->backend.get(), metas), absl::OkStatus())
        << "reference " << number;
    for (const ChunkMeta& meta : metas) chunk_keys.insert(meta.id.ToBytes());
  }
  EXPECT_EQ(broker->catalog->size(), static_cast<int64_t>(found.size()));
  // Nothing else was left on disk.
  std::set<std::string> disk_keys;
  EXPECT_TRUE(broker->disk
                  ->Scan(DiskTable::kChunks, "",
                         [&](std::string_view key, std::string_view) {
                           disk_keys.emplace(key);
                           return true;
                         })
                  .ok());
  EXPECT_EQ(disk_keys, chunk_keys);
  return found;
}

TEST(CrashTest, KilledAtAnyMomentNothingDurableIsLost) {
  const TempDir dir;
  const std::string path = dir.path() + "/db";
  std::mt19937_64 random(31337);
  std::map<uint64_t, Fate> fates;
  uint64_t first = 0;
  int lines = 0;
  for (int round = 0; round < kRounds; ++round) {
    lines += RunAndKill(path, first, &random, &fates);
    // A reference that was being put or deleted may be there or not; the disk decides.
    const uint64_t highest = (fates.empty() ? 0 : fates.rbegin()->first) + 1;
    const std::vector<uint64_t> found = Verify(path, highest, fates);
    if (HasFailure()) return;
    for (auto& [number, fate] : fates) {
      if (fate == Fate::kDeleting) fate = Fate::kDeleted;
    }
    for (const uint64_t number : found) fates[number] = Fate::kPut;
    first = highest + 1;
  }
  EXPECT_GT(lines, kRounds);
}

}  // namespace
}  // namespace semshare::testing
