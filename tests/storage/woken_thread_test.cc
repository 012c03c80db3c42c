#include "storage/woken_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

namespace semshare::testing {
namespace {

TEST(WokenThreadTest, WorksOnceWokenAndNotBefore) {
  std::atomic<int> runs{0};
  {
    const WokenThread thread([&runs](std::atomic<bool>&) { ++runs; });
  }
  EXPECT_EQ(runs, 0);
  WokenThread thread([&runs](std::atomic<bool>&) { ++runs; });
  for (int wanted = 1; wanted <= 3; ++wanted) {
    thread.Wake();
    while (runs < wanted) std::this_thread::yield();
  }
  EXPECT_EQ(runs, 3);
}

TEST(WokenThreadTest, WakesDuringTheWorkCountOnce) {
  std::atomic<int> started{0};
  std::atomic<int> released{0};
  WokenThread thread([&](std::atomic<bool>& stopping) {
    const int number = ++started;
    while (released < number && !stopping) std::this_thread::yield();
  });
  thread.Wake();
  while (started < 1) std::this_thread::yield();
  for (int i = 0; i < 5; ++i) thread.Wake();
  EXPECT_EQ(started, 1);
  released = 1;
  while (started < 2) std::this_thread::yield();
  released = 2;
}

TEST(WokenThreadTest, ItsEndBreaksOffTheWork) {
  std::atomic<bool> started{false};
  auto thread = std::make_unique<WokenThread>([&started](std::atomic<bool>& stopping) {
    started = true;
    while (!stopping) std::this_thread::yield();
  });
  thread->Wake();
  while (!started) std::this_thread::yield();
  thread = nullptr;  // Comes back.
}

}  // namespace
}  // namespace semshare::testing
