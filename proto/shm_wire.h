// The messages on the broker's shared-memory socket: the one layout, besides the .proto, that the
// broker and its clients share.
//
// The socket is AF_UNIX, SOCK_SEQPACKET; integers are in the host's byte order, both sides being on
// one host. A client sends a message for each region, and gets one ShmAnswer each: for shared
// memory a ShmHello with one file descriptor (SCM_RIGHTS), for memory of a GPU a CudaHello with
// none. A region can be named until the connection that registered it is closed, or shut down for
// sending by the client. The broker closes its end only when no work uses the connection's regions
// any more and all are unmapped: a client that shuts down and then receives the end of the stream
// knows that its memory is its own again.
//
//   ShmHello   | magic 8 | bytes 8 |                     16 bytes
//   CudaHello  | magic 8 | device 16 | memory 64 | event 64 | offset 8 | bytes 8 |   168 bytes
//   ShmAnswer  | magic 8 | code 4 | 0 4 | handle 16 | message 160, zero-terminated |   192 bytes
//
// Frozen: a change takes a new magic. Thread-safe: plain values.
#ifndef SEMSHARE_PROTO_SHM_WIRE_H_
#define SEMSHARE_PROTO_SHM_WIRE_H_

#include <cstdint>

namespace semshare {

inline constexpr char kShmMagic[8] = {'S', 'E', 'M', 'S', 'H', 'M', '0', '1'};

struct ShmHello {
  char magic[8];
  uint64_t bytes;  // size of the memfd
};
static_assert(sizeof(ShmHello) == 16);

inline constexpr char kCudaMagic[8] = {'S', 'E', 'M', 'C', 'U', 'D', '0', '1'};

// CUDA IPC. The event is the client's: it records it on its stream before each call that names the
// region, and the broker's GPU work waits for it.
struct CudaHello {
  char magic[8];
  char device[16];  // UUID of the memory's device
  char memory[64];  // cudaIpcMemHandle_t of the allocation
  char event[64];   // cudaIpcEventHandle_t
  uint64_t offset;  // of the region in the allocation
  uint64_t bytes;
};
static_assert(sizeof(CudaHello) == 168);

struct ShmAnswer {
  char magic[8];
  uint32_t code;  // of gRPC's status codes; 0: the handle is valid
  uint32_t reserved;
  char handle[16];
  char message[160];
};
static_assert(sizeof(ShmAnswer) == 192);

}  // namespace semshare

#endif  // SEMSHARE_PROTO_SHM_WIRE_H_
