// Shared by the kernels: packed panels, activations, padding, and which thread does what.
#pragma once

#include "common/view.h"
#include "cuda/platform.cuh"

namespace fastvoc::cuda {

constexpr int kPanel = 16;  // output channels side by side in packed weights
constexpr int kTile = 8;    // output steps of one thread: each weight that it loads serves them all

__host__ __device__ inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

__host__ __device__ inline std::int64_t padded(std::int64_t channels) { return ceil_div(channels, kPanel) * kPanel; }

__device__ inline float leaky(float v, float slope) { return v > 0.0f ? v : slope * v; }

__device__ inline std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// The step that padded step t reads; negative for a zero.
__device__ inline std::int64_t padded_step(std::int64_t t, std::int64_t steps, bool reflect) {
  if (t >= 0 && t < steps) return t;
  if (!reflect) return -1;
  return t < 0 ? -t : 2 * (steps - 1) - t;
}

// Adds weights[ci * kPanel] * leaky(rows[i][ci * channel]) to sum[i] for every input channel; a null row is zeros.
template <class In, class W>
__device__ void accumulate(float (&sum)[kTile], const In* const (&rows)[kTile], std::int64_t channel, const W* weights,
                           int channels, float slope) {
  for (int ci = 0; ci < channels; ++ci) {
    const float w = widen(weights[ci * kPanel]);
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      if (rows[i] != nullptr) sum[i] += w * leaky(widen(rows[i][ci * channel]), slope);
    }
  }
}

}  // namespace fastvoc::cuda
