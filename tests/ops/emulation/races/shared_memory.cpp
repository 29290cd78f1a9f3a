// Threads launch one kernel with different shared memory on two devices; prints launches that were refused and settings.
#include "cuda/shared_memory.cuh"

#include <cstdio>
#include <vector>

namespace {

struct Args {};
void kernel(Args) {}
std::atomic<int> refused = 0;

void launches(int of, int bytes) {
  device = of;
  for (int i = 0; i < 200; ++i) {
    fastvoc::cuda::allow_shared(kernel, bytes);
    sleep();
    if (bytes > limits[device]) ++refused;
  }
}

}  // namespace

int main() {
  std::vector<std::thread> threads;
  for (const int kib : {40, 60, 100, 160}) {
    for (const int of : {0, 1}) threads.emplace_back(launches, of, kib * 1024);
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("%d %d\n", refused.load(), settings.load());
}
