// The messages on the broker's shared-memory socket: the one layout, besides the .proto, that the
// broker and its clients share.
//
// The socket is AF_UNIX, SOCK_SEQPACKET; integers are in the host's byte order, both sides being on
// one host. A client sends one ShmHello with one file descriptor (SCM_RIGHTS) for each region, and
// gets one ShmAnswer each. A region lives until the connection that registered it is closed.
//
//   ShmHello   | magic 8 | bytes 8 |                     16 bytes
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
