// Sign codes of RoPE'd token embeddings, on the CPU: angles and their sines in fp64, one rounding
// to fp32, then a matrix product and its signs.
//
// Thread-safe: pure function over the caller's memory. Allocates a scratch tile per call.
#ifndef SEMSHARE_KERNELS_CPU_TOKEN_CODES_H_
#define SEMSHARE_KERNELS_CPU_TOKEN_CODES_H_

#include "kernels/backend.h"
#include "kernels/cpu/worker_pool.h"

namespace semshare {

// REQUIRES: the spans are resolved; CheckTokenCodes(args) is OK.
void TokenCodes(const TokenCodesArgs& args, WorkerPool& pool);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_TOKEN_CODES_H_
