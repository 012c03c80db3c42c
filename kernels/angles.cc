#include "kernels/angles.h"

#include <cmath>

#include "kernels/base/status_macros.h"

namespace semshare {

std::vector<float> BuildAngleTable(const RotaryDescriptor& rotary,
                                   absl::Span<const PositionPair> pairs) {
  const size_t half = rotary.inv_freq.size();
  SEMSHARE_CHECK(rotary.width >= 0 && half == static_cast<size_t>(rotary.width / 2));
  std::vector<float> table(pairs.size() * 2 * half);
  float* row = table.data();
  for (const PositionPair& pair : pairs) {
    for (size_t j = 0; j < half; ++j) {
      const double phi = RotaryAngle(pair.target, rotary.inv_freq[j], rotary.angle_precision) -
                         RotaryAngle(pair.source, rotary.inv_freq[j], rotary.angle_precision);
      row[j] = static_cast<float>(std::cos(phi));
      row[half + j] = static_cast<float>(std::sin(phi));
    }
    row += 2 * half;
  }
  return table;
}

}  // namespace semshare
