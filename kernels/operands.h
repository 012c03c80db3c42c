// Which spans of an operation a device must reach by itself: the large ones, and those that stay.
// What is not listed here is a table or a result, and may be any host memory (kernels/backend.h).
//
// Thread-safe: pure functions.
#ifndef SEMSHARE_KERNELS_OPERANDS_H_
#define SEMSHARE_KERNELS_OPERANDS_H_

#include <array>

#include "kernels/backend.h"

namespace semshare {

struct NamedSpan {
  const char* name;
  MemorySpan span;
};

inline std::array<NamedSpan, 2> OperandsOf(const RealignArgs& args) {
  return {{{"source", args.source}, {"destination.memory", args.destination.memory}}};
}

inline std::array<NamedSpan, 3> OperandsOf(const ProjectArgs& args) {
  return {{{"a", args.a}, {"b", args.b}, {"c", args.c}}};
}

inline std::array<NamedSpan, 2> OperandsOf(const SignatureArgs& args) {
  return {{{"projected", args.projected}, {"weights", args.weights}}};
}

inline std::array<NamedSpan, 2> OperandsOf(const TokenCodesArgs& args) {
  return {{{"table", args.table}, {"matrix", args.matrix}}};
}

// Codes come from indexes that grow in host memory.
inline std::array<NamedSpan, 0> OperandsOf(const HammingTopKArgs&) { return {}; }
inline std::array<NamedSpan, 0> OperandsOf(const NearestCodeArgs&) { return {}; }

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_OPERANDS_H_
