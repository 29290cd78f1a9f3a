// Stands in for torch's threads: as many as SPLIT_THREADS says take their parts one after the other, and what each one multiplies
// is counted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace splits {

// The multiply-adds of a call: `wall` of the thread that has most, region by region between two waits of all.
class Count {
 public:
  static Count& now() {
    static Count count;
    return count;
  }

  std::size_t threads() const { return mine_.size(); }
  double busy() const { return busy_; }
  double wall() const { return wall_; }

  void add(double products) {
    busy_ += products;
    inside_ ? mine_[thread_] += products : wall_ += products;
  }
  void begin_call() { busy_ = wall_ = 0; }

  // run(thread) for so many threads; inside of another region everything stays on its thread.
  template <class Run>
  void region(std::size_t threads, const Run& run) {
    if (inside_) {
      for (std::size_t i = 0; i < threads; ++i) run(i);
      return;
    }
    std::fill(mine_.begin(), mine_.end(), 0.0);
    inside_ = true;
    for (thread_ = 0; thread_ < threads; ++thread_) run(thread_);
    inside_ = false;
    wall_ += *std::max_element(mine_.begin(), mine_.end());
  }

 private:
  Count() : mine_(std::stoul(std::getenv("SPLIT_THREADS"))) {}

  std::vector<double> mine_;
  double busy_ = 0, wall_ = 0;
  std::size_t thread_ = 0;
  bool inside_ = false;
};

}  // namespace splits

namespace torch::stable {

inline std::int64_t get_num_threads() { return static_cast<std::int64_t>(splits::Count::now().threads()); }

}  // namespace torch::stable
