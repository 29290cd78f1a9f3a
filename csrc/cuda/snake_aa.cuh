// snake_aa: snake at twice the rate, on a tile of time by channels; both filters read shared memory.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

constexpr int kAaTaps = 12;
constexpr int kAaSteps = 64;     // of output of a tile
constexpr int kAaChannels = 32;  // of a tile: neighbouring threads take neighbouring channels
constexpr int kAaThreads = 256;
constexpr int kAaNear = 3;  // steps on either side that one filter reads; together they reach five
constexpr int kAaInputs = kAaSteps + 4 * kAaNear;
constexpr int kAaDoubled = kAaSteps + 2 * kAaNear;
constexpr int kAaShared = (kAaInputs + 2 * kAaDoubled) * kAaChannels * static_cast<int>(sizeof(float));

// x + inverse * sin(alpha * x)^2 between the filters; alpha and inverse [channels], taps [12], all float32.
template <class T>
struct SnakeAaArgs {
  View<const T> x;
  View<T> y;
  const float* alpha;
  const float* inverse;
  const float* taps;
  const std::int64_t* lengths;
  std::int64_t steps;
  int channels;

  __host__ __device__ std::int64_t blocks_across() const { return ceil_div(channels, kAaChannels); }
};

template <class T>
__global__ void __launch_bounds__(kAaThreads) snake_aa_kernel(const __grid_constant__ SnakeAaArgs<T> a) {
  const std::int64_t item = blockIdx.y, across = a.blocks_across();
  const std::int64_t first = blockIdx.x / across * kAaSteps, valid = a.lengths ? a.lengths[item] : a.steps;
  const std::int64_t last = min(first + kAaSteps, a.steps);
  const int lane = static_cast<int>(threadIdx.x % kAaChannels), row = static_cast<int>(threadIdx.x / kAaChannels);
  const int c = static_cast<int>(blockIdx.x % across) * kAaChannels + lane;
  constexpr int kRows = kAaThreads / kAaChannels;
  float* const inputs = reinterpret_cast<float*>(shared_memory()) + lane;
  float* const even = inputs + kAaInputs * kAaChannels;
  float* const odd = even + kAaDoubled * kAaChannels;

  const bool inside = c < a.channels && first < valid;
  if (inside) {
    const T* x = a.x.data + item * a.x.item + c * a.x.channel;
    for (int i = row; i < kAaInputs; i += kRows) {
      const std::int64_t t = first - 2 * kAaNear + i, near = t < 0 ? 0 : t < valid ? t : valid - 1;
      inputs[i * kAaChannels] = widen(x[near * a.x.step]);
    }
  }
  __syncthreads();
  if (inside) {
    const float alpha = a.alpha[c], inverse = a.inverse[c];
    for (int i = row; i < kAaDoubled; i += kRows) {
      // Beyond an end of the item the doubled signal repeats its own last sample.
      const std::int64_t t = first - kAaNear + i, near = t < 0 ? 0 : t < valid ? t : valid - 1;
      const float* x = inputs + (near - first + kAaNear) * kAaChannels;
      float e = 0.0f, o = 0.0f;
#pragma unroll
      for (int j = 0; j <= 2 * kAaNear; ++j) {
        const float v = 2.0f * x[j * kAaChannels];
        if (j < 2 * kAaNear) e = fmaf(v, a.taps[kAaTaps - 1 - 2 * j], e);
        if (j > 0) o = fmaf(v, a.taps[kAaTaps - 2 * j], o);
      }
      e = fmaf(sin_squared(alpha * e), inverse, e);
      o = fmaf(sin_squared(alpha * o), inverse, o);
      even[i * kAaChannels] = t < valid ? e : o;
      odd[i * kAaChannels] = t < 0 ? e : o;
    }
  }
  __syncthreads();
  if (c >= a.channels) return;
  for (int i = row; first + i < last; i += kRows) {
    float sum = 0.0f;
    if (first + i < valid) {
#pragma unroll
      for (int k = 0; k < kAaTaps / 2; ++k) {
        sum = fmaf(odd[(i + k) * kAaChannels], a.taps[2 * k], sum);
        sum = fmaf(even[(i + k + 1) * kAaChannels], a.taps[2 * k + 1], sum);
      }
    }
    a.y.data[item * a.y.item + c * a.y.channel + (first + i) * a.y.step] = narrow<T>(sum);
  }
}

template <class T>
void snake_aa(const SnakeAaArgs<T>& args, std::int64_t items, Stream stream) {
  launch_blocks(snake_aa_kernel<T>, ceil_div(args.steps, kAaSteps) * args.blocks_across(), items, kAaThreads, kAaShared,
                stream, args);
}

}  // namespace fastvoc::cuda
