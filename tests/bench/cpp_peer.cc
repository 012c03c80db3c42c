// The C++ client's half of transport_bench.py and find_bench.py, which start it:
//
//   cpp_peer --address=HOST:PORT --model=HEX --prompts=FILE --tokens=N
//            [--target=FILE --source=FILE --layers=N --row_bytes=N --first_row=N]
//
// FILE of --prompts holds prompts of `tokens` ids, uint32, one after another; --target and --source
// are memory that both processes map, [layer][plane][token][row_bytes] with two planes a layer.
// Each line of standard input is a request, answered by one line:
//
//   get        FindMatch for prompt 0, then Read into the target from its row `first_row` on: the
//              read's seconds
//   put SEED   Put of `tokens` random ids, rows from the source: seconds until visible, reference
//   find       FindMatch for each prompt in turn: the seconds of each, separated by blanks
//   empty N    GetModel N times: likewise
//   readers N  FindMatch for prompt 0 in N threads, then Read in all of them at once: the seconds
//              of each read, from the common start
//
// Exits with 1 and a message if anything fails. Not for use by hand.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/escaping.h"
#include "client/cpp/client.h"

ABSL_FLAG(std::string, address, "", "the broker");
ABSL_FLAG(std::string, model, "", "fingerprint in hexadecimal");
ABSL_FLAG(std::string, prompts, "", "file of token ids, uint32");
ABSL_FLAG(int64_t, tokens, 0, "ids of one prompt");
ABSL_FLAG(std::string, target, "", "file that reads go to");
ABSL_FLAG(std::string, source, "", "file that puts come from");
ABSL_FLAG(int64_t, layers, 0, "layers of the model");
ABSL_FLAG(int64_t, row_bytes, 0, "bytes of a row of each plane");
ABSL_FLAG(int64_t, first_row, 0, "row of the target where the match begins");
ABSL_FLAG(int64_t, vocab, 0, "random ids lie below it");

namespace semshare::client {
namespace {

constexpr int64_t kPlanes = 2;

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "cpp_peer: %s\n", message.c_str());
  std::exit(1);
}

template <typename T>
T Take(absl::StatusOr<T> result) {
  if (!result.ok()) Fail(result.status().ToString());
  return *std::move(result);
}

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// A file mapped whole; never unmapped.
absl::Span<char> MapFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct stat facts = {};
  if (fd < 0 || fstat(fd, &facts) != 0) Fail("cannot open " + path);
  const size_t size = static_cast<size_t>(facts.st_size);
  void* const memory =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (memory == MAP_FAILED) Fail("cannot map " + path);
  close(fd);
  return {static_cast<char*>(memory), size};
}

std::vector<uint32_t> ReadIds(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  const std::string bytes = content.str();
  std::vector<uint32_t> ids(bytes.size() / sizeof(uint32_t));
  std::copy_n(bytes.data(), ids.size() * sizeof(uint32_t), reinterpret_cast<char*>(ids.data()));
  return ids;
}

class Peer {
 public:
  Peer()
      : client_(Take(Client::Create({.address = absl::GetFlag(FLAGS_address)}))),
        model_(absl::HexStringToBytes(absl::GetFlag(FLAGS_model))),
        tokens_(static_cast<size_t>(absl::GetFlag(FLAGS_tokens))),
        ids_(ReadIds(absl::GetFlag(FLAGS_prompts))) {
    if (tokens_ == 0 || ids_.size() < tokens_) Fail("no prompt of that many tokens");
  }

  void Get() {
    FindResult found = Take(client_->FindMatch(Request(0)));
    if (!found.lease.held()) Fail("no match");
    const RowSink sink =
        IntoViews(Views(absl::GetFlag(FLAGS_target), absl::GetFlag(FLAGS_first_row)));
    const auto begin = std::chrono::steady_clock::now();
    const absl::Status status = client_->Read(found.lease, {}, sink);
    const double seconds = SecondsSince(begin);
    if (!status.ok()) Fail(status.ToString());
    std::printf("%.9f\n", seconds);
  }

  void Put(uint32_t seed) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<uint32_t> any(
        0, static_cast<uint32_t>(absl::GetFlag(FLAGS_vocab)) - 1);
    v1::BeginPutRequest request;
    request.set_model(model_);
    request.set_durability(v1::DURABILITY_MEMORY);
    const RowViews views = Views(absl::GetFlag(FLAGS_source), 0);
    for (int64_t i = 0; i < views[0][0].rows; ++i) request.add_token_ids(any(random));
    const KvShape shape =
        UniformShape(static_cast<uint32_t>(views.size()),
                     std::vector<int64_t>(kPlanes, absl::GetFlag(FLAGS_row_bytes)));
    // Mappings are never undone, so nobody has to own them.
    const RowSource source = FromViews(views, std::make_shared<int>(0));
    const auto begin = std::chrono::steady_clock::now();
    const PutResult put = Take(client_->Put(request, shape, source));
    const double seconds = SecondsSince(begin);
    std::printf("%.9f %s\n", seconds, absl::BytesToHexString(put.reference_id).c_str());
  }

  void Readers(int64_t count) {
    std::vector<FindResult> found;
    for (int64_t i = 0; i < count; ++i) {
      found.push_back(Take(client_->FindMatch(Request(0))));
      if (!found.back().lease.held()) Fail("no match");
    }
    std::vector<double> seconds(found.size());
    std::vector<std::thread> threads;
    const auto begin = std::chrono::steady_clock::now();
    for (size_t i = 0; i < found.size(); ++i) {
      threads.emplace_back([this, &lease = found[i].lease, &taken = seconds[i], begin] {
        // Rows are copied, as a reader does, but not kept: so many caches would fill the machine.
        std::vector<char> rows(static_cast<size_t>(kMaxFramePayloadBytes));
        const auto sink = [&rows](const RowRange&, absl::Span<const absl::Span<const char>> parts) {
          PieceReader reader(parts);
          reader.Copy(rows.data(), reader.left());
          return absl::OkStatus();
        };
        const absl::Status status = client_->Read(lease, {}, sink);
        if (!status.ok()) Fail(status.ToString());
        taken = SecondsSince(begin);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const double each : seconds) std::printf("%.9f ", each);
    std::printf("\n");
  }

  void Empty(int64_t calls) {
    for (int64_t i = 0; i < calls; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      Take(client_->GetModel(model_));
      std::printf("%.9f ", SecondsSince(begin));
    }
    std::printf("\n");
  }

  void Find() {
    for (size_t prompt = 0; prompt < ids_.size() / tokens_; ++prompt) {
      const v1::FindMatchRequest request = Request(prompt);
      const auto begin = std::chrono::steady_clock::now();
      const FindResult found = Take(client_->FindMatch(request));
      const double seconds = SecondsSince(begin);
      if (!found.lease.held()) Fail("no match");
      std::printf("%.9f ", seconds);
    }
    std::printf("\n");
  }

 private:
  v1::FindMatchRequest Request(size_t prompt) const {
    v1::FindMatchRequest request;
    request.set_model(model_);
    request.set_preset(v1::PRESET_FAST);
    request.set_question_tokens(1);
    const auto first = ids_.begin() + static_cast<std::ptrdiff_t>(prompt * tokens_);
    request.mutable_token_ids()->Assign(first, first + static_cast<std::ptrdiff_t>(tokens_));
    return request;
  }

  // Planes of the mapped file, from row `first_row` of each on.
  RowViews Views(const std::string& path, int64_t first_row) {
    absl::Span<char>& memory = path == absl::GetFlag(FLAGS_target) ? target_ : source_;
    if (memory.empty()) memory = MapFile(path);
    const int64_t row_bytes = absl::GetFlag(FLAGS_row_bytes);
    const int64_t layers = absl::GetFlag(FLAGS_layers);
    const int64_t rows = static_cast<int64_t>(memory.size()) / (layers * kPlanes * row_bytes);
    RowViews views(static_cast<size_t>(layers));
    char* base = memory.data();
    for (auto& planes : views) {
      for (int64_t plane = 0; plane < kPlanes; ++plane) {
        planes.push_back(
            {base + first_row * row_bytes, rows - first_row, row_bytes, row_bytes, 1, row_bytes});
        base += rows * row_bytes;
      }
    }
    return views;
  }

  const std::unique_ptr<Client> client_;
  const std::string model_;
  const size_t tokens_;
  const std::vector<uint32_t> ids_;
  absl::Span<char> target_, source_;
};

void Serve() {
  Peer peer;
  std::string line;
  while (std::getline(std::cin, line)) {
    if (line == "get") {
      peer.Get();
    } else if (line.rfind("put ", 0) == 0) {
      peer.Put(static_cast<uint32_t>(std::stoul(line.substr(4))));
    } else if (line == "find") {
      peer.Find();
    } else if (line.rfind("readers ", 0) == 0) {
      peer.Readers(std::stol(line.substr(8)));
    } else if (line.rfind("empty ", 0) == 0) {
      peer.Empty(std::stol(line.substr(6)));
    } else {
      Fail("no request '" + line + "'");
    }
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace semshare::client

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  semshare::client::Serve();
  return 0;
}
