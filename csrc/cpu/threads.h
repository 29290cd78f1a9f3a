// How many threads a call may use while calls on other threads run as well.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace fastvoc {

// A share of the machine's threads, held while it lives: as many as wanted, but no more than are left, and at least one. So
// models that run at once on threads of their own divide the cores; results do not depend on it.
class Share {
 public:
  Share(std::int64_t wanted, std::int64_t all) {
    std::int64_t before = taken().load(std::memory_order_relaxed);
    do {
      count_ = std::clamp<std::int64_t>(all - before, 1, std::max<std::int64_t>(wanted, 1));
    } while (!taken().compare_exchange_weak(before, before + count_, std::memory_order_relaxed));
  }
  ~Share() { taken().fetch_sub(count_, std::memory_order_relaxed); }
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;

  std::int64_t count() const { return count_; }

 private:
  static std::atomic<std::int64_t>& taken() {
    static std::atomic<std::int64_t> threads{0};
    return threads;
  }

  std::int64_t count_;
};

}  // namespace fastvoc
