// adain: mean and squares of each channel over pieces of an item, then every block combines all pieces in the same order.
#pragma once

#include "cuda/common.cuh"
#include "cuda/ptx.cuh"

namespace fastvoc::cuda {

constexpr int kAdaInLanes = 32;  // channels of a block
constexpr int kAdaInRows = 8;    // steps that a block takes at once
constexpr int kAdaInThreads = kAdaInLanes * kAdaInRows;
constexpr std::int64_t kAdaInSteps = 512;  // of a piece

// `weight`, `bias` and `style` are float32, `pieces` scratch [items, max_pieces(), 3, channels]: of each channel of a
// piece a mean, what the true mean is more, and the sum of squared differences from that.
template <class T>
struct AdaInArgs {
  View<const T> x;
  View<T> y;
  const float* weight;
  const float* bias;
  const float* style;
  std::int64_t style_item;
  std::int64_t style_value;
  float* pieces;
  const std::int64_t* lengths;
  std::int64_t steps;
  int channels;
  float eps;
  Act act;

  __host__ __device__ std::int64_t max_pieces() const { return ceil_div(steps, kAdaInSteps); }
  __host__ __device__ std::int64_t lanes() const { return ceil_div(channels, kAdaInLanes); }
  __device__ float* piece(std::int64_t item, std::int64_t index) const {
    return pieces + (item * max_pieces() + index) * 3 * channels;
  }
};

// Every thread has the sum of its channel over the rows.
__device__ inline float sum_of_rows(float* shared, float v) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  shared[thread] = v;
  for (int reach = kAdaInRows / 2; reach > 0; reach /= 2) {
    __syncthreads();
    if (thread < reach * kAdaInLanes) shared[thread] += shared[thread + reach * kAdaInLanes];
  }
  __syncthreads();
  return shared[thread % kAdaInLanes];
}

template <class T>
__global__ void adain_pieces_kernel(const __grid_constant__ AdaInArgs<T> a) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const std::int64_t item = blockIdx.y, index = static_cast<std::int64_t>(blockIdx.x) / a.lanes();
  const int lane = static_cast<int>(threadIdx.x) % kAdaInLanes, row = static_cast<int>(threadIdx.x) / kAdaInLanes;
  const int channel = static_cast<int>(static_cast<std::int64_t>(blockIdx.x) % a.lanes()) * kAdaInLanes + lane;
  const bool live = channel < a.channels;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps, begin = index * kAdaInSteps;
  const std::int64_t end = begin + kAdaInSteps < valid ? begin + kAdaInSteps : valid;
  if (begin >= end) return;
  const T* x = a.x.data + item * a.x.item + (live ? channel : 0) * a.x.channel;
  const auto each = [&](const auto& use) {
    for (std::int64_t t = begin + row; t < end; t += kAdaInRows) use(widen(x[t * a.x.step]));
  };
  const auto count = static_cast<float>(end - begin);
  float sum = 0.0f;
  each([&](float v) { sum += v; });
  const float mean = sum_of_rows(shared, sum) / count;
  float off = 0.0f, squares = 0.0f;
  each([&](float v) {
    off += v - mean;
    squares = fmaf(v - mean, v - mean, squares);
  });
  off = sum_of_rows(shared, off) / count;
  squares = sum_of_rows(shared, squares);
  if (row != 0 || !live) return;
  float* to = a.piece(item, index) + channel;
  to[0] = mean;
  to[a.channels] = off;
  to[2 * a.channels] = squares - off * off * count;
}

template <class T>
__global__ void adain_kernel(const __grid_constant__ AdaInArgs<T> a) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const std::int64_t item = blockIdx.y, index = static_cast<std::int64_t>(blockIdx.x) / a.lanes();
  const int lane = static_cast<int>(threadIdx.x) % kAdaInLanes, row = static_cast<int>(threadIdx.x) / kAdaInLanes;
  const int at = static_cast<int>(static_cast<std::int64_t>(blockIdx.x) % a.lanes()) * kAdaInLanes + lane;
  const bool live = at < a.channels;
  const int channel = live ? at : 0;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  const int count = static_cast<int>(ceil_div(valid, kAdaInSteps));
  // What means are more than the first keeps its digits where all of them are large.
  const float origin = a.piece(item, 0)[channel];
  const auto length = [&](int i) {
    const std::int64_t rest = valid - i * kAdaInSteps;
    return static_cast<float>(rest < kAdaInSteps ? rest : kAdaInSteps);
  };
  const auto above = [&](const float* piece) { return piece[channel] - origin + piece[a.channels + channel]; };
  float part = 0.0f;
  for (int i = row; i < count; i += kAdaInRows) part = fmaf(above(a.piece(item, i)), length(i), part);
  const float shift = sum_of_rows(shared, part) / static_cast<float>(valid);
  part = 0.0f;
  for (int i = row; i < count; i += kAdaInRows) {
    const float* piece = a.piece(item, i);
    const float off = above(piece) - shift;
    part += fmaf(off * off, length(i), piece[2 * a.channels + channel]);
  }
  const float variance = sum_of_rows(shared, part) / static_cast<float>(valid);
  if (!live) return;
  const float* style = a.style + item * a.style_item;
  const float gain = 1.0f + style[channel * a.style_value];
  const float beta = style[(a.channels + channel) * a.style_value];
  const float scale = gain * a.weight[channel] / sqrtf(variance + a.eps), added = fmaf(gain, a.bias[channel], beta);
  const T* x = a.x.data + item * a.x.item + channel * a.x.channel;
  T* y = a.y.data + item * a.y.item + channel * a.y.channel;
  const std::int64_t begin = index * kAdaInSteps, end = begin + kAdaInSteps < a.steps ? begin + kAdaInSteps : a.steps;
  for (std::int64_t t = begin + row; t < end; t += kAdaInRows) {
    float v = 0.0f;
    if (t < valid) v = activate(a.act, fmaf(widen(x[t * a.x.step]) - origin - shift, scale, added), channel);
    y[t * a.y.step] = narrow<T>(v);
  }
}

template <class T>
void adain(const AdaInArgs<T>& args, std::int64_t items, Stream stream) {
  constexpr int kShared = kAdaInThreads * static_cast<int>(sizeof(float));
  const std::int64_t blocks = args.max_pieces() * args.lanes();
  launch_blocks(adain_pieces_kernel<T>, blocks, items, kAdaInThreads, kShared, stream, args);
  launch_blocks(adain_kernel<T>, blocks, items, kAdaInThreads, kShared, stream, args);
}

}  // namespace fastvoc::cuda
