#include "kernels/cuda/event_pool.h"

#include <utility>

#include "kernels/cuda/device_error.h"

namespace semshare {
namespace {

constexpr int kGrowth = 64;  // points

}  // namespace

class EventPool::State final : public Event::State {
 public:
  State(std::shared_ptr<EventPool> pool, Point point)
      : pool_(std::move(pool)), point_(std::move(point)) {}
  ~State() override { pool_->Give(std::move(point_)); }

  // An error is an end, too: Wait returns it.
  bool Done() override {
    static_cast<void>(cudaSetDevice(pool_->device_));
    return cudaEventQuery(point_.event.get()) != cudaErrorNotReady;
  }

  absl::Status Wait() override {
    SEMSHARE_CUDA_RETURN_IF_ERROR(cudaSetDevice(pool_->device_));
    SEMSHARE_RETURN_IF_ERROR(
        CudaStatus(cudaEventSynchronize(point_.event.get()), "work before an event"));
    const DeviceError error = static_cast<DeviceError>(*point_.error);
    if (error == DeviceError::kNone) return absl::OkStatus();
    return absl::InvalidArgumentError(DeviceErrorText(error));
  }

 private:
  const std::shared_ptr<EventPool> pool_;
  Point point_;
};

absl::Status EventPool::Grow(int count) {
  SEMSHARE_ASSIGN_OR_RETURN(PinnedMemory words,
                            NewPinnedMemory(count * static_cast<int64_t>(sizeof(int32_t))));
  std::vector<Point> points;
  for (int i = 0; i < count; ++i) {
    SEMSHARE_ASSIGN_OR_RETURN(CudaEvent event, NewCudaEvent());
    points.push_back({std::move(event), static_cast<int32_t*>(words.get()) + i});
  }
  MutexLock lock(&mutex_);
  words_.push_back(std::move(words));
  for (Point& point : points) free_.push_front(std::move(point));
  return absl::OkStatus();
}

absl::StatusOr<EventPool::Point> EventPool::Take() {
  while (true) {
    Point point;
    {
      MutexLock lock(&mutex_);
      if (!free_.empty()) {
        point = std::move(free_.front());
        free_.pop_front();
      }
    }
    if (point.error == nullptr) {
      SEMSHARE_RETURN_IF_ERROR(Grow(kGrowth));
      continue;
    }
    // An event that nobody waited for may still be to come, and its error with it: that would be
    // taken for the next one's. The oldest is the likeliest to be over.
    if (cudaEventQuery(point.event.get()) != cudaErrorNotReady) return point;
    Give(std::move(point));
    SEMSHARE_RETURN_IF_ERROR(Grow(kGrowth));
  }
}

void EventPool::Give(Point point) {
  MutexLock lock(&mutex_);
  free_.push_back(std::move(point));
}

absl::StatusOr<Event> EventPool::Record(cudaStream_t stream, const int32_t* error) {
  SEMSHARE_ASSIGN_OR_RETURN(Point point, Take());
  // From here on the state gives the point back, whatever happens.
  const auto queue = [&] {
    const cudaError_t copied =
        cudaMemcpyAsync(point.error, error, sizeof(int32_t), cudaMemcpyDeviceToHost, stream);
    return copied != cudaSuccess ? copied : cudaEventRecord(point.event.get(), stream);
  };
  const absl::Status status = CudaStatus(queue(), "recording an event");
  auto state = std::make_shared<State>(shared_from_this(), std::move(point));
  SEMSHARE_RETURN_IF_ERROR(status);
  return Event(std::move(state));
}

}  // namespace semshare
