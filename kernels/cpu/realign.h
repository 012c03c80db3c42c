// Realign on the CPU: gather the rows of one (layer, plane), rotate them, write them to a view.
//
// Rotation is in fp32 with one rounding to nearest even at the store; rows without an angle and
// what lies outside the rotary range are copied byte for byte. Vector code is chosen at run time
// for the machine (Highway) when the source is raw and the elements of a row are adjacent at the
// destination; codecs and any other strides take a scalar path. The rows are split over the pool's
// threads, so where two rows name one slot, or source and destination overlap, what is written is
// unspecified.
//
// Thread-safe: pure functions over the caller's memory; nothing is allocated.
#ifndef SEMSHARE_KERNELS_CPU_REALIGN_H_
#define SEMSHARE_KERNELS_CPU_REALIGN_H_

#include "kernels/backend.h"
#include "kernels/cpu/worker_pool.h"

namespace semshare {

// REQUIRES: the spans are resolved; KernelsSupportRealign(args) and CheckRealign(args) are OK.
void Realign(const RealignArgs& args, WorkerPool& pool);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_CPU_REALIGN_H_
