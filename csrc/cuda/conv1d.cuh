// y = post((conv(pad(pre(x))) + bias + residual + sum) * scale), accumulated in float32.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

// `sum` may be null. The weights are panels [ceil(cout / 16), kernel, cin, 16], those of `beside` follow in the same way.
template <class In, class W, class Out>
struct Conv1dArgs : ConvArgs<In, W, Out> {
  using Base = ConvArgs<In, W, Out>;
  using Base::steps, Base::cout, Base::cin, Base::further, Base::kernel, Base::stride, Base::dilation, Base::left, Base::right;
  View<const float> sum;
  float scale = 1.0f;

  __host__ __device__ std::int64_t made(std::int64_t n) const {
    return (n + left + right - static_cast<std::int64_t>(dilation) * (kernel - 1) - 1) / stride + 1;
  }
  __host__ __device__ std::int64_t threads() const { return ceil_div(made(steps), kTile) * cout; }
  __host__ __device__ std::int64_t own_weights() const { return padded(cout) * kernel * cin; }
  std::int64_t weights() const { return own_weights() + padded(cout) * further; }
};

// One thread computes kTile output steps of one channel; neighbouring threads take neighbouring channels.
template <class In, class W, class Out>
__global__ void conv1d_kernel(const __grid_constant__ Conv1dArgs<In, W, Out> a) {
  const std::int64_t thread = thread_index(), item = blockIdx.y;
  if (thread >= a.threads()) return;
  const int co = static_cast<int>(thread % a.cout);
  const std::int64_t first = thread / a.cout * kTile;
  const std::int64_t steps = a.lengths ? a.lengths[item] : a.steps;
  const std::int64_t valid = a.made(steps), last = min(first + kTile, a.made(a.steps)), mirrored = a.mirrored(steps);

  float sum[kTile] = {};
  const W* weights = a.weight + (co / kPanel) * static_cast<std::int64_t>(a.kernel) * a.cin * kPanel + co % kPanel;
  for (int k = 0; k < a.kernel && first < valid; ++k, weights += static_cast<std::int64_t>(a.cin) * kPanel) {
    const In* rows[kTile];
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const std::int64_t at = (first + i) * a.stride + static_cast<std::int64_t>(k) * a.dilation - a.left;
      const std::int64_t t = first + i < valid ? padded_step(at, mirrored, a.pad) : -1;
      rows[i] = t < 0 || t >= steps ? nullptr : a.x.data + item * a.x.item + t * a.x.step;
    }
    accumulate(sum, rows, a.x.channel, weights, a.cin, a.pre);
  }
  if (a.further) {
    const In* rows[kTile];
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const std::int64_t t = first + i;
      rows[i] = t < valid ? a.beside.data + item * a.beside.item + t * a.beside.step : nullptr;
    }
    const std::int64_t row = static_cast<std::int64_t>(a.further) * kPanel;
    weights = a.weight + a.own_weights() + co / kPanel * row + co % kPanel;
    accumulate_as<ActKind::kLeaky>(sum, rows, a.beside.channel, weights, a.further, identity());
  }

  const float bias = a.bias ? widen(a.bias[co]) : 0.0f;
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    const std::int64_t t = first + i;
    if (t >= last) break;
    float v = 0.0f;
    if (t < valid) {
      v = sum[i] + bias;
      if (a.residual.data) v += widen(a.residual.data[item * a.residual.item + co * a.residual.channel + t * a.residual.step]);
      if (a.sum.data) v += a.sum.data[item * a.sum.item + co * a.sum.channel + t * a.sum.step];
      v = activate(a.post, v * a.scale, co);
    }
    a.y.data[item * a.y.item + co * a.y.channel + t * a.y.step] = narrow<Out>(v);
  }
}

template <class In, class W, class Out>
void conv1d(const Conv1dArgs<In, W, Out>& args, std::int64_t items, Stream stream) {
  launch(conv1d_kernel<In, W, Out>, args.threads(), items, stream, args);
}

}  // namespace fastvoc::cuda
