// RoundingProblem: a realign whose results are given fp32 values, rounded by the store: values
// around every rounding boundary of every exponent, infinities and NaN.
//
// The element 1 times the "cosine" v is v exactly, so the store's rounding is all that is left.
//
// Not thread-safe. Owns its memory, which must outlive the work on its arguments.
#ifndef SEMSHARE_TESTS_KERNELS_ROUNDING_PROBLEM_H_
#define SEMSHARE_TESTS_KERNELS_ROUNDING_PROBLEM_H_

#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace semshare {

class RoundingProblem {
 public:
  // REQUIRES: a 16-bit dtype.
  RoundingProblem(Dtype dtype, RotaryPairing pairing);

  // The operation, from host memory of this object into its result.
  RealignArgs Args();

  // Fails the test unless every result is the nearest even value, and NaN is quiet NaN.
  void Verify() const;

 private:
  void VerifyValue(float value, uint16_t bits) const;

  const Dtype dtype_;
  const RotaryPairing pairing_;
  std::vector<float> values_;
  std::vector<float> angles_;
  std::vector<RealignRow> rows_;
  std::vector<uint16_t> source_;
  std::vector<uint16_t> result_;
};

}  // namespace semshare

#endif  // SEMSHARE_TESTS_KERNELS_ROUNDING_PROBLEM_H_
