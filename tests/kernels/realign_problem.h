// RealignProblem: an input for realign with the answer worked out in fp64, for any dtype, pairing,
// rotary range and destination layout.
//
// Not thread-safe. Owns its host memory; tests copy it where their backend wants it.
#ifndef SEMSHARE_TESTS_KERNELS_REALIGN_PROBLEM_H_
#define SEMSHARE_TESTS_KERNELS_REALIGN_PROBLEM_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace semshare {

enum class TestLayout {
  kContiguous,      // [token][head][width]
  kHeadMajor,       // [1][head][token][width], a Transformers cache
  kPagedNhd,        // [block][16][head][width], vLLM
  kPagedHnd,        // [block][head][16][width], vLLM
  kPagedCombined,   // [block][2][16][head][width], the second half
  kElementStrided,  // [token][width][head]: no two elements of a head are adjacent
  kReversed,        // tokens run backwards within a block: a negative stride
};

struct RealignShape {
  Dtype dtype = Dtype::kFloat32;
  RotaryPairing pairing = RotaryPairing::kHalfSplit;
  int32_t heads = 3;
  int32_t width = 64;
  int32_t rotary_begin = 0;
  int32_t rotary_width = 64;
  TestLayout layout = TestLayout::kContiguous;
  int64_t tokens = 40;
  Codec codec = Codec::kRaw;
  bool streaming = false;

  std::string Name() const;
};

// Shapes that cover every path: full, partial, tiny and odd-sized rotary ranges, all layouts, all
// codecs.
std::vector<RealignShape> AllRealignShapes();

// The nearest value of a format with `mantissa_bits` stored bits and smallest normal exponent
// `exponent_min`, ties to even; beyond `largest` after rounding, infinity.
double RoundToFormat(double value, int mantissa_bits, int exponent_min, double largest);
double RoundToDtype(double value, Dtype dtype);

class RealignProblem {
 public:
  explicit RealignProblem(const RealignShape& shape);

  const std::vector<std::byte>& source() const { return source_; }
  const std::vector<RealignRow>& rows() const { return rows_; }
  const std::vector<float>& angles() const { return angles_; }
  // What the destination holds before: sentinels.
  const std::vector<std::byte>& blank() const { return blank_; }

  // The operation over copies of the four vectors.
  RealignArgs Args(MemorySpan source, MemorySpan rows, MemorySpan angles,
                   MemorySpan destination) const;

  // Fails the test unless `result` is right: no NaN, within the error bound, copies exact,
  // sentinels intact.
  void Verify(const std::vector<std::byte>& result) const;

 private:
  void MakeSource();
  void MakeView();
  void MakeRows();
  double SourceValue(const RealignRow& row, int32_t head, int32_t element) const;
  // No NaN, and the source's value exactly or the rotated one within the bound.
  bool IsRight(const std::vector<std::byte>& result, const RealignRow& row, int32_t head,
               int32_t element) const;

  const RealignShape shape_;
  const int64_t element_bytes_;  // at the destination
  const int64_t stored_bytes_;   // in the source
  const int64_t slab_offset_;
  const int64_t scale_offset_;
  const int64_t chunk_bytes_;
  PlaneView view_;
  int64_t slots_ = 0;
  int64_t first_slot_ = 0;
  std::vector<std::byte> source_;
  std::vector<RealignRow> rows_;
  std::vector<float> angles_;
  std::vector<std::byte> blank_;
};

}  // namespace semshare

#endif  // SEMSHARE_TESTS_KERNELS_REALIGN_PROBLEM_H_
