// Stands in for torch's threads: two of them.
#pragma once

#include <cstdint>
#include <exception>
#include <thread>

namespace torch::stable {

inline std::int64_t get_num_threads() { return 2; }

// Each thread takes a half of the range, as OpenMP's would; inside of one, everything runs on it.
template <class Work>
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t, const Work& work) {
  static thread_local bool inside = false;
  const std::int64_t middle = begin + (end - begin + 1) / 2;
  if (inside || middle >= end) {
    if (begin < end) work(begin, end);
    return;
  }
  std::exception_ptr thrown;
  std::thread other([&] {
    inside = true;
    try {
      work(middle, end);
    } catch (...) {
      thrown = std::current_exception();
    }
  });
  inside = true;
  work(begin, middle);
  inside = false;
  other.join();
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace torch::stable
