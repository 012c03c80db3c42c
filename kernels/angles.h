// Angle tables for realignment: the (cos, sin) rows that RealignArgs::angles points to.
// Thread-safe: pure functions.
#ifndef SEMSHARE_KERNELS_ANGLES_H_
#define SEMSHARE_KERNELS_ANGLES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/rotary.h"

namespace semshare {

// One move of a row.
struct PositionPair {
  int64_t source = 0;
  int64_t target = 0;

  bool operator==(const PositionPair&) const = default;
};

// float[pairs][2][width / 2]: g cos phi, then g sin phi, formed in fp64 with one rounding to fp32.
// Fast where neighbours in `pairs` move by the same distance.
// phi_j = angle(target, f_j) - angle(source, f_j), g = 1 (source and target share one table).
std::vector<float> BuildAngleTable(const RotaryDescriptor& rotary,
                                   absl::Span<const PositionPair> pairs);

}  // namespace semshare

#endif  // SEMSHARE_KERNELS_ANGLES_H_
