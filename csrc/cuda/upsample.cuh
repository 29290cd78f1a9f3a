// Transposed convolution with its activation: each output phase is a small convolution of its own.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

// Step q * stride + p of the full result is the sum over the taps j of phase p of x[q - j] * tap j; `left` steps are cut
// off its beginning. The weights are one convolution per phase, in order, each packed as for conv1d.
template <class T>
struct UpsampleArgs : ConvArgs<T, T, T> {
  using Base = ConvArgs<T, T, T>;
  using Base::steps, Base::cout, Base::cin, Base::kernel, Base::stride, Base::left, Base::right;

  __host__ __device__ std::int64_t made(std::int64_t n) const { return (n - 1) * stride + kernel - left - right; }
  __host__ __device__ std::int64_t tiles() const { return ceil_div(ceil_div(made(steps) + left, stride), kTile); }
  __host__ __device__ std::int64_t threads() const { return tiles() * stride * cout; }
  __host__ __device__ int taps(int phase) const { return kernel / stride + (phase < kernel % stride); }
  __host__ __device__ std::int64_t taps_before(int phase) const {
    const int longer = phase < kernel % stride ? phase : kernel % stride;
    return static_cast<std::int64_t>(phase) * (kernel / stride) + longer;
  }

  std::int64_t weights() const { return padded(cout) * kernel * cin; }

  // Takes what a shape with the names of UpsampleCall says.
  template <class Shape>
  void set(const Shape& shape) {
    cout = shape.cout;
    cin = shape.cin;
    kernel = shape.kernel;
    stride = shape.stride;
    left = shape.left;
    right = shape.right;
  }
};

// One thread computes one phase and channel of kTile neighbouring q; neighbouring threads take neighbouring channels.
template <class T>
__global__ void upsample_kernel(const __grid_constant__ UpsampleArgs<T> a) {
  const std::int64_t thread = thread_index(), item = blockIdx.y;
  if (thread >= a.threads()) return;
  const int co = static_cast<int>(thread % a.cout), phase = static_cast<int>(thread / a.cout % a.stride);
  const std::int64_t first = thread / a.cout / a.stride * kTile;
  const std::int64_t steps = a.lengths ? a.lengths[item] : a.steps;
  const std::int64_t valid = a.made(steps), all = a.made(a.steps);

  float sum[kTile] = {};
  const int taps = a.taps(phase);
  const std::int64_t row = static_cast<std::int64_t>(a.cin) * kPanel;
  const T* weights = a.weight + a.taps_before(phase) * padded(a.cout) * a.cin + co / kPanel * taps * row + co % kPanel;
  for (int j = 0; j < taps; ++j, weights += row) {
    const T* rows[kTile];
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const std::int64_t t = padded_step(first + i - j, steps, Pad::kZeros);
      rows[i] = t < 0 ? nullptr : a.x.data + item * a.x.item + t * a.x.step;
    }
    accumulate(sum, rows, a.x.channel, weights, a.cin, a.pre);
  }

  const float bias = widen(a.bias[co]);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    const std::int64_t t = (first + i) * a.stride + phase - a.left;
    if (t < 0 || t >= all) continue;
    a.y.data[item * a.y.item + co * a.y.channel + t * a.y.step] = narrow<T>(t < valid ? sum[i] + bias : 0.0f);
  }
}

template <class T>
void upsample(const UpsampleArgs<T>& args, std::int64_t items, Stream stream) {
  launch(upsample_kernel<T>, args.threads(), items, stream, args);
}

}  // namespace fastvoc::cuda
