// lvc: y = gate(conv(x with the kernel of its frame) + bias of its frame) + residual.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

// `kernels` [items, taps, cin, cout, frames] and `biases` [items, cout, frames] with any strides; `residual` may be null.
template <class T>
struct LvcArgs {
  View<const T> x;
  View<T> y;
  View<const T> residual;
  View<const T> biases;
  const T* kernels;
  std::int64_t kernel_item;
  std::int64_t kernel_tap;
  std::int64_t kernel_in;
  std::int64_t kernel_out;
  std::int64_t kernel_frame;
  const std::int64_t* lengths;
  std::int64_t frames;
  std::int64_t hop;
  int cin;
  int cout;
  int taps;
  bool gated;

  __host__ __device__ int made() const { return gated ? cout / 2 : cout; }
  __host__ __device__ std::int64_t tiles() const { return ceil_div(hop, kTile); }  // of a frame
};

// The sums of one output channel for the steps `first` and after of one frame.
template <class T>
__device__ void lvc_sums(const LvcArgs<T>& a, std::int64_t item, std::int64_t frame, std::int64_t first, int count,
                         std::int64_t valid, int channel, float (&sum)[kTile]) {
  const float bias = widen(a.biases.data[item * a.biases.item + channel * a.biases.channel + frame * a.biases.step]);
#pragma unroll
  for (int i = 0; i < kTile; ++i) sum[i] = bias;
  const T* kernel = a.kernels + item * a.kernel_item + channel * a.kernel_out + frame * a.kernel_frame;
  for (int k = 0; k < a.taps; ++k) {
    const T* rows[kTile];
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const std::int64_t t = first + i + k - a.taps / 2;
      rows[i] = i < count && t >= 0 && t < valid ? a.x.data + item * a.x.item + t * a.x.step : nullptr;
    }
    for (int ci = 0; ci < a.cin; ++ci) {
      const float w = widen(kernel[k * a.kernel_tap + ci * a.kernel_in]);
#pragma unroll
      for (int i = 0; i < kTile; ++i) {
        if (rows[i] != nullptr) sum[i] = fmaf(w, widen(rows[i][ci * a.x.channel]), sum[i]);
      }
    }
  }
}

// One thread computes up to kTile steps of a frame for one channel; neighbouring threads take neighbouring channels.
template <class T>
__global__ void lvc_kernel(const __grid_constant__ LvcArgs<T> a) {
  const std::int64_t thread = thread_index(), item = blockIdx.y, made = a.made(), tiles = a.tiles();
  if (thread >= a.frames * tiles * made) return;
  const int c = static_cast<int>(thread % made);
  const std::int64_t frame = thread / made / tiles, into = thread / made % tiles * kTile, first = frame * a.hop + into;
  const int count = static_cast<int>(min(std::int64_t{kTile}, a.hop - into));
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.frames * a.hop;  // whole frames
  float sum[kTile] = {};
  if (first < valid) {
    lvc_sums(a, item, frame, first, count, valid, c, sum);
    if (a.gated) {
      float second[kTile];
      lvc_sums(a, item, frame, first, count, valid, c + static_cast<int>(made), second);
#pragma unroll
      for (int i = 0; i < kTile; ++i) sum[i] = tanhf(second[i]) / (1.0f + expf(-sum[i]));
    }
    if (a.residual.data) {
#pragma unroll
      for (int i = 0; i < kTile; ++i) {
        if (i >= count) break;
        sum[i] += widen(a.residual.data[item * a.residual.item + c * a.residual.channel + (first + i) * a.residual.step]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    if (i >= count) break;
    a.y.data[item * a.y.item + c * a.y.channel + (first + i) * a.y.step] = narrow<T>(sum[i]);
  }
}

template <class T>
void lvc(const LvcArgs<T>& args, std::int64_t items, Stream stream) {
  launch(lvc_kernel<T>, args.frames * args.tiles() * args.made(), items, stream, args);
}

}  // namespace fastvoc::cuda
