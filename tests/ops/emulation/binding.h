// What the C functions of the emulation share.
#pragma once

#include <cuda/common.cuh>

#include <utility>
#include <vector>

namespace emulation {

using fastvoc::View;
namespace cuda = fastvoc::cuda;
using Ints = const std::int64_t*;

// Strides in torch's order: batch, channel, time.
template <class T>
View<const T> view(const void* data, Ints strides) {
  return {static_cast<const T*>(data), strides[0], strides[1], strides[2]};
}

template <class T>
View<T> rows(void* data, std::int64_t channels, std::int64_t steps) {
  return {static_cast<T*>(data), channels * steps, 1, channels};
}

// dtype: 0 float32, 1 float16, 2 bfloat16.
template <class Run>
void for_dtype(int dtype, const Run& run) {
  if (dtype == 0) run(float{});
  if (dtype == 1) run(cuda::Half{});
  if (dtype == 2) run(cuda::BFloat16{});
}

// The activations of an op, from what fastvoc/ops/_cuda.py packs: the curves of each snake are alpha, then the inverse.
inline std::vector<cuda::Act> activations(const std::vector<std::int64_t>& kinds, const std::vector<double>& slopes,
                                    const float* curves, std::int64_t width) {
  std::vector<cuda::Act> acts;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    acts.push_back({static_cast<cuda::ActKind>(kinds[i]), static_cast<float>(slopes[i]), nullptr, nullptr});
    if (acts[i].kind != cuda::ActKind::kSnake) continue;
    acts[i].alpha = curves;
    acts[i].inverse = curves + width;
    curves += 2 * width;
  }
  return acts;
}

}  // namespace emulation

// From now on launches are counted, and run unless `dry`; returns how many there were.
extern "C" std::int64_t count_launches(int dry) {
  emulation::dry = dry != 0;
  return std::exchange(emulation::launches, 0);
}
