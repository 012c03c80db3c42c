// Resolve: the spans of an operation's arguments, made addresses that this thread may touch. The
// operations of this folder take arguments that are resolved: every span is host memory.
//
// `resolve` is called once per span and returns the span to use instead, with kind kHost.
// Thread-safe: pure functions.
#ifndef SEMSHARE_KERNELS_CPU_OPERATIONS_H_
#define SEMSHARE_KERNELS_CPU_OPERATIONS_H_

#include "kernels/backend.h"

namespace semshare {

template <typename Fn>
RealignArgs Resolve(RealignArgs args, const Fn& resolve) {
  for (MemorySpan* span : {&args.source, &args.rows, &args.angles, &args.destination.memory}) {
    *span = resolve(*span);
  }
  return args;
}

template <typename Fn>
ProjectArgs Resolve(ProjectArgs args, const Fn& resolve) {
  for (MemorySpan* span : {&args.a, &args.b, &args.bias, &args.c}) *span = resolve(*span);
  return args;
}

template <typename Fn>
SignatureArgs Resolve(SignatureArgs args, const Fn& resolve) {
  for (MemorySpan* span : {&args.projected, &args.weights, &args.ids, &args.windows, &args.codes}) {
    *span = resolve(*span);
  }
  return args;
}

template <typename Fn>
HammingTopKArgs Resolve(HammingTopKArgs args, const Fn& resolve) {
  for (MemorySpan* span :
       {&args.codes, &args.live, &args.queries, &args.indices, &args.distances}) {
    *span = resolve(*span);
  }
  if (args.shortlist > 0) args.first_words = resolve(args.first_words);
  return args;
}

template <typename Fn>
TokenCodesArgs Resolve(TokenCodesArgs args, const Fn& resolve) {
  for (MemorySpan* span : {&args.table, &args.matrix, &args.ids, &args.positions, &args.codes}) {
    *span = resolve(*span);
  }
  return args;
}

template <typename Fn>
NearestCodeArgs Resolve(NearestCodeArgs args, const Fn& resolve) {
  for (MemorySpan* span :
       {&args.queries, &args.codes, &args.windows, &args.indices, &args.distances}) {
    *span = resolve(*span);
  }
  return args;
}

// A resolved span as an array.
template <typename T>
T* ArrayOf(const MemorySpan& span) {
  return reinterpret_cast<T*>(span.host());
}

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_OPERATIONS_H_
