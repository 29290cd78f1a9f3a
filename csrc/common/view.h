// A [B, C, T] batch as the kernels see it: a pointer and three strides, in elements.
#pragma once

#include <cstdint>

namespace fastvoc {

template <class T>
struct View {
  T* data;
  std::int64_t item;
  std::int64_t channel;
  std::int64_t step;
};

}  // namespace fastvoc
