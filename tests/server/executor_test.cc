#include "server/executor.h"

#include <atomic>
#include <memory>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace semshare {
namespace {

using ::testing::ElementsAre;

// Keeps one thread of an executor busy until Open.
class Gate {
 public:
  void Wait() {
    MutexLock lock(&mutex_);
    entered_ = true;
    changed_.NotifyAll();
    while (!open_) changed_.Wait(&mutex_);
  }
  void AwaitEntered() {
    MutexLock lock(&mutex_);
    while (!entered_) changed_.Wait(&mutex_);
  }
  void Open() {
    MutexLock lock(&mutex_);
    open_ = true;
    changed_.NotifyAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool entered_ ABSL_GUARDED_BY(mutex_) = false;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(ExecutorTest, QueueTakesItsLimitAndNoMore) {
  constexpr int kQueue = 3;
  std::atomic<int> ran{0};
  Gate gate;
  {
    Executor executor(1, kQueue);
    ASSERT_TRUE(executor.TrySubmit([&] { gate.Wait(); }));
    gate.AwaitEntered();
    for (int i = 0; i < kQueue; ++i) EXPECT_TRUE(executor.TrySubmit([&] { ++ran; })) << i;
    EXPECT_FALSE(executor.TrySubmit([&] { ++ran; }));
    // The next step of admitted work is never refused.
    executor.Submit([&] { ++ran; });
    EXPECT_FALSE(executor.TrySubmit([&] { ++ran; }));
    gate.Open();
  }
  // The destructor runs what is queued, and a refused task is not.
  EXPECT_EQ(ran.load(), kQueue + 1);
}

TEST(ExecutorTest, OneThreadRunsTasksInOrder) {
  std::vector<int> order;
  {
    Executor executor(1, 10);
    for (int i = 0; i < 4; ++i) executor.Submit([&order, i] { order.push_back(i); });
  }
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3));
}

TEST(ExecutorTest, ATaskMaySubmitTheNextOne) {
  std::atomic<int> steps{0};
  Executor executor(2, 1);
  Gate done;
  std::function<void()> step = [&] {
    if (++steps < 100) {
      executor.Submit(step);
    } else {
      done.Wait();
    }
  };
  executor.Submit(step);
  done.AwaitEntered();
  done.Open();
  EXPECT_EQ(steps.load(), 100);
}

TEST(ExecutorTest, ThreadsRunAtOnce) {
  Gate first;
  Gate second;
  Executor executor(2, 2);
  executor.Submit([&] { first.Wait(); });
  executor.Submit([&] { second.Wait(); });
  first.AwaitEntered();
  second.AwaitEntered();
  first.Open();
  second.Open();
}

}  // namespace
}  // namespace semshare
