// The vector path for every instruction set that this machine has, and the scalar path.
#include "kernels/cpu/realign.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "kernels/cpu/realign_strided.h"
#include "tests/kernels/realign_problem.h"

namespace semshare {
namespace {

RealignArgs HostArgs(const RealignProblem& problem, std::vector<std::byte>& result) {
  return problem.Args(
      HostSpan(problem.source().data(), static_cast<int64_t>(problem.source().size())),
      HostSpan(problem.rows().data(), static_cast<int64_t>(problem.rows().size())),
      HostSpan(problem.angles().data(), static_cast<int64_t>(problem.angles().size())),
      HostSpan(result.data(), static_cast<int64_t>(result.size())));
}

TEST(RealignTest, EveryInstructionSet) {
  WorkerPool pool(1);
  const std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  for (const RealignShape& shape : AllRealignShapes()) {
    SCOPED_TRACE(shape.Name());
    const RealignProblem problem(shape);
    for (const int64_t target : targets) {
      SCOPED_TRACE(hwy::TargetName(target));
      hwy::SetSupportedTargetsForTest(target);
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
      std::vector<std::byte> result = problem.blank();
      Realign(HostArgs(problem, result), pool);
      ASSERT_NO_FATAL_FAILURE(problem.Verify(result));
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
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
