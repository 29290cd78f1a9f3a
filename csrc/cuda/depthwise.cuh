// depthwise: the activation of a tile of time by channels in shared memory, then the taps of every channel. The steps of a tile
// lie one dilation apart, so that it needs no more than kernel - 1 further ones, whatever the dilation.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

constexpr int kDepthwiseSteps = 64;     // of output of a tile
constexpr int kDepthwiseChannels = 32;  // of a tile: neighbouring threads take neighbouring channels
constexpr int kDepthwiseThreads = 256;

// `taps` [kernel, width], `bias` [width] and the activation's curves are float32; zeros lie beside the signal.
template <class T>
struct DepthwiseArgs {
  View<const T> x;
  View<T> y;
  const float* taps;
  const float* bias;
  const std::int64_t* lengths;
  std::int64_t steps;
  int channels;
  int width;
  int kernel;
  int dilation;
  int left;
  Act pre;

  __host__ __device__ std::int64_t blocks_across() const { return ceil_div(channels, kDepthwiseChannels); }
  // Steps that are a multiple of the dilation apart, of which there are so many sets.
  __host__ __device__ std::int64_t phases() const { return min(static_cast<std::int64_t>(dilation), steps); }
  __host__ __device__ std::int64_t blocks_along() const { return ceil_div(ceil_div(steps, dilation), kDepthwiseSteps); }
  int shared() const { return (kDepthwiseSteps + kernel - 1) * kDepthwiseChannels * static_cast<int>(sizeof(float)); }
};

template <class T>
__global__ void __launch_bounds__(kDepthwiseThreads) depthwise_kernel(const __grid_constant__ DepthwiseArgs<T> a) {
  constexpr int kRows = kDepthwiseThreads / kDepthwiseChannels;
  const std::int64_t item = blockIdx.y, across = a.blocks_across(), tile = blockIdx.x / across;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  const std::int64_t phase = tile % a.phases(), row = tile / a.phases() * kDepthwiseSteps;
  const std::int64_t first = phase + row * a.dilation;
  const int lane = static_cast<int>(threadIdx.x % kDepthwiseChannels);
  const int own = static_cast<int>(threadIdx.x / kDepthwiseChannels);
  const int c = static_cast<int>(blockIdx.x % across) * kDepthwiseChannels + lane;
  float* const inputs = reinterpret_cast<float*>(shared_memory()) + lane;
  const bool live = c < a.channels;
  if (live && first < valid) {
    const T* x = a.x.data + item * a.x.item + c * a.x.channel;
    with_kind(a.pre.kind, [&](auto kind) {
      for (int i = own; i < kDepthwiseSteps + a.kernel - 1; i += kRows) {
        const std::int64_t t = first + static_cast<std::int64_t>(i) * a.dilation - a.left;
        const bool inside = t >= 0 && t < valid;
        inputs[i * kDepthwiseChannels] = inside ? activate_as<decltype(kind)::value>(a.pre, widen(x[t * a.x.step]), c) : 0.0f;
      }
    });
  }
  __syncthreads();
  if (!live) return;
  T* const y = a.y.data + item * a.y.item + c * a.y.channel;
  for (int i = own; i < kDepthwiseSteps; i += kRows) {
    const std::int64_t t = first + static_cast<std::int64_t>(i) * a.dilation;
    if (t >= a.steps) break;
    float sum = 0.0f;
    if (t < valid) {
      sum = a.bias[c];
      for (int k = 0; k < a.kernel; ++k) sum = fmaf(inputs[(i + k) * kDepthwiseChannels], a.taps[k * a.width + c], sum);
    }
    y[t * a.y.step] = narrow<T>(sum);
  }
}

template <class T>
void depthwise(const DepthwiseArgs<T>& args, std::int64_t items, Stream stream) {
  const std::int64_t blocks = args.phases() * args.blocks_along() * args.blocks_across();
  launch_blocks(depthwise_kernel<T>, blocks, items, kDepthwiseThreads, args.shared(), stream, args);
}

}  // namespace fastvoc::cuda
