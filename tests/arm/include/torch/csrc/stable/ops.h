// Stands in for the few ops of torch's stable interface that the kernels' glue calls.
#pragma once

#include <algorithm>
#include <cstring>
#include <exception>
#include <optional>
#include <thread>
#include <vector>

#include <torch/csrc/stable/tensor.h>

namespace torch::stable {

inline Tensor empty(std::vector<std::int64_t> sizes, headeronly::ScalarType type) { return {std::move(sizes), type}; }

// On a CUDA device, where outputs may not be written, memory full of NaN.
inline Tensor new_empty(const Tensor& like, std::vector<std::int64_t> sizes,
                        std::optional<headeronly::ScalarType> type = std::nullopt) {
  const Tensor made(std::move(sizes), type.value_or(like.scalar_type()));
  std::memset(made.mutable_data_ptr(), 0xff, static_cast<std::size_t>(made.numel()) * made.element_size());
  return made;
}

inline Tensor transpose(const Tensor& t, std::int64_t a, std::int64_t b) {
  return t.transposed(static_cast<std::size_t>(a), static_cast<std::size_t>(b));
}

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
