// What the glue hands to mrf, and the memory that it needs.
#pragma once

#include <vector>

#include "cuda/common.cuh"

namespace fastvoc::cuda {

enum class MrfPad : int { kZeros = 0, kReflect = 1, kCausal = 2 };  // the numbers of fastvoc/ops/mrf.py

// Convolutions in order of use, block by block; layers[j] counts block j's layers, each of `depth` convolutions.
// `weight` and `bias` hold those of all convolutions, one after the other.
template <class T>
struct MrfArgs {
  View<const T> x;
  View<T> y;
  const T* weight;
  const T* bias;
  const std::int64_t* lengths;
  float* scratch;
  std::vector<std::int64_t> kernels;
  std::vector<std::int64_t> dilations;
  std::vector<std::int64_t> layers;
  std::vector<Act> acts;  // before each convolution
  std::int64_t depth;
  std::int64_t items;
  std::int64_t steps;
  int channels;
  MrfPad pad;

  // Steps padded before and after the input of a convolution.
  int left(std::size_t conv) const { return reach(conv) - right(conv); }
  int right(std::size_t conv) const { return pad == MrfPad::kCausal ? 0 : reach(conv) / 2; }
  int reach(std::size_t conv) const { return static_cast<int>((kernels[conv] - 1) * dilations[conv]); }
  std::int64_t taps() const {
    std::int64_t count = 0;
    for (std::int64_t k : kernels) count += k;
    return count;
  }
};

}  // namespace fastvoc::cuda
