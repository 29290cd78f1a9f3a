// Stands in for the few ops of torch's stable interface that the kernels' glue calls.
#pragma once

#include <cstring>
#include <optional>
#include <vector>

#include <stand_in_threads.h>
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

}  // namespace torch::stable
