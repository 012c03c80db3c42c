// The vector path for every instruction set that this machine has, and the scalar path.
#include "kernels/cpu/realign.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "kernels/cpu/realign_strided.h"
#include "tests/kernels/realign_problem.h"
#include "tests/kernels/rounding_problem.h"

namespace semshare {
namespace {

RealignArgs HostArgs(const RealignProblem& problem, std::vector<std::byte>& result) {
  return problem.Args(
      HostSpan(problem.source().data(), static_cast<int64_t>(problem.source().size())),
      HostSpan(problem.rows().data(), static_cast<int64_t>(problem.rows().size())),
      HostSpan(problem.angles().data(), static_cast<int64_t>(problem.angles().size())),
      HostSpan(result.data(), static_cast<int64_t>(result.size())));
}

// Runs `body` once for every instruction set that this machine and this build have.
template <typename Body>
void ForEachTarget(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
    hwy::SetSupportedTargetsForTest(0);
  }
  hwy::GetChosenTarget().DeInit();
}

TEST(RealignTest, EveryInstructionSet) {
  WorkerPool pool(1);
  EXPECT_GT(hwy::SupportedAndGeneratedTargets().size(), 1U);
  for (const RealignShape& shape : AllRealignShapes()) {
    SCOPED_TRACE(shape.Name());
    const RealignProblem problem(shape);
    ASSERT_NO_FATAL_FAILURE(ForEachTarget([&problem, &pool] {
      std::vector<std::byte> result = problem.blank();
      Realign(HostArgs(problem, result), pool);
      problem.Verify(result);
    }));
  }
}

TEST(RealignTest, EveryInstructionSetRoundsToNearestEven) {
  WorkerPool pool(1);
  for (const Dtype dtype : {Dtype::kFloat16, Dtype::kBfloat16}) {
    for (const RotaryPairing pairing : {RotaryPairing::kHalfSplit, RotaryPairing::kInterleaved}) {
      ASSERT_NO_FATAL_FAILURE(ForEachTarget([dtype, pairing, &pool] {
        RoundingProblem problem(dtype, pairing);
        Realign(problem.Args(), pool);
        problem.Verify();
      }));
      RoundingProblem scalar(dtype, pairing);
      const RealignArgs args = scalar.Args();
      RealignStrided(args, 0, args.row_count);
      ASSERT_NO_FATAL_FAILURE(scalar.Verify());
    }
  }
}

TEST(RealignTest, ScalarPath) {
  for (const RealignShape& shape : AllRealignShapes()) {
    SCOPED_TRACE(shape.Name());
    const RealignProblem problem(shape);
    std::vector<std::byte> result = problem.blank();
    RealignStrided(HostArgs(problem, result), 0, shape.tokens);
    ASSERT_NO_FATAL_FAILURE(problem.Verify(result));
  }
}

}  // namespace
}  // namespace semshare
