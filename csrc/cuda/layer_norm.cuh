// layer_norm, also behind a depthwise convolution, as a ConvNeXt block begins: a warp a step.
#pragma once

#include "cuda/common.cuh"
#include "cuda/reduce.cuh"

namespace fastvoc::cuda {

constexpr int kNormWarps = 8;  // of a block

inline int layer_norm_shared(int channels) { return kNormWarps * channels * static_cast<int>(sizeof(float)); }

// `weight` and `bias` are [rows, width], `row` may be null; `taps` [kernel + 1, width], where there is a convolution, ends
// with its bias. All are float32.
template <class T>
struct LayerNormArgs {
  View<const T> x;
  View<T> y;
  const float* taps;
  const float* weight;
  const float* bias;
  const std::int64_t* row;
  const std::int64_t* lengths;
  std::int64_t steps;
  int channels;
  int width;
  int kernel;
  float eps;

  int shared() const { return layer_norm_shared(channels); }
};

template <class T>
__global__ void layer_norm_kernel(const __grid_constant__ LayerNormArgs<T> a) {
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t item = blockIdx.y, t = static_cast<std::int64_t>(blockIdx.x) * kNormWarps + warp;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  if (t >= a.steps) return;
  T* y = a.y.data + item * a.y.item + t * a.y.step;
  if (t >= valid) {
    for (int c = lane; c < a.channels; c += 32) y[c * a.y.channel] = narrow<T>(0.0f);
    return;
  }
  // A lane reads back only what it wrote itself.
  float* const values = reinterpret_cast<float*>(shared_memory()) + warp * a.channels;
  const T* x = a.x.data + item * a.x.item;
  float sum = 0.0f;
  for (int c = lane; c < a.channels; c += 32) {
    float v;
    if (a.taps) {
      v = a.taps[a.kernel * a.width + c];
      for (int k = 0; k < a.kernel; ++k) {
        const std::int64_t at = t + k - a.kernel / 2;
        if (at >= 0 && at < valid) v = fmaf(a.taps[k * a.width + c], widen(x[at * a.x.step + c * a.x.channel]), v);
      }
    } else {
      v = widen(x[t * a.x.step + c * a.x.channel]);
    }
    values[c] = v;
    sum += v;
  }
  const float mean = sum_of_warp(sum) / static_cast<float>(a.channels);
  float squares = 0.0f;
  for (int c = lane; c < a.channels; c += 32) {
    values[c] -= mean;
    squares = fmaf(values[c], values[c], squares);
  }
  const float scale = 1.0f / sqrtf(sum_of_warp(squares) / static_cast<float>(a.channels) + a.eps);
  const std::int64_t row = a.row ? a.row[item] * a.width : 0;
  for (int c = lane; c < a.channels; c += 32) {
    y[c * a.y.channel] = narrow<T>(fmaf(values[c] * scale, a.weight[row + c], a.bias[row + c]));
  }
}

template <class T>
void layer_norm(const LayerNormArgs<T>& args, std::int64_t items, Stream stream) {
  launch_blocks(layer_norm_kernel<T>, ceil_div(args.steps, kNormWarps), items, 32 * kNormWarps, args.shared(), stream,
                args);
}

}  // namespace fastvoc::cuda
