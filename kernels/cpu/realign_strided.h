// The scalar path of Realign: any codec and any destination strides, one element at a time. It is
// also the readable statement of what the vector path computes.
//
// Thread-safe: pure function over the caller's memory.
#ifndef SEMSHARE_KERNELS_CPU_REALIGN_STRIDED_H_
#define SEMSHARE_KERNELS_CPU_REALIGN_STRIDED_H_

#include <cstdint>

#include "kernels/backend.h"

namespace semshare {

// Rows [begin, end) of args.rows. REQUIRES: as Realign.
void RealignStrided(const RealignArgs& args, int64_t begin, int64_t end);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_REALIGN_STRIDED_H_
