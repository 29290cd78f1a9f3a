// y = post((conv(pad(pre(x))) + bias + residual + sum) * scale), accumulated in float32.
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

// `residual`, `sum` and `lengths` may be null. The weights are panels [ceil(cout / 16), kernel, cin, 16].
template <class In, class W, class Out>
struct Conv1dArgs {
  View<const In> x;
  View<const In> residual;
  View<const float> sum;
  View<Out> y;
  const W* weight;
  const W* bias;
  const std::int64_t* lengths;
  std::int64_t steps;
  int cout;
  int cin;
  int kernel;
  int stride;
  int dilation;
  int left;
  int right;
  bool reflect;
  bool tanh;
  float pre_slope;
  float post_slope;
  float scale;

  __host__ __device__ std::int64_t made(std::int64_t n) const {
    return (n + left + right - static_cast<std::int64_t>(dilation) * (kernel - 1) - 1) / stride + 1;
  }
  __host__ __device__ std::int64_t threads() const { return ceil_div(made(steps), kTile) * cout; }
  std::int64_t weights() const { return padded(cout) * kernel * cin; }
};

// The op's arguments with its shape filled in: cout, cin, kernel, stride, dilation, left, right, reflect.
template <class T>
Conv1dArgs<T, T, T> conv1d_args(const std::int64_t* shape, const double* slopes, bool tanh) {
  Conv1dArgs<T, T, T> args{};
  int* const fields[] = {&args.cout, &args.cin, &args.kernel, &args.stride, &args.dilation, &args.left, &args.right};
  for (int* field : fields) *field = static_cast<int>(*shape++);
  args.reflect = *shape != 0;
  args.tanh = tanh;
  args.pre_slope = static_cast<float>(slopes[0]);
  args.post_slope = static_cast<float>(slopes[1]);
  args.scale = 1.0f;
  return args;
}

// One thread computes kTile output steps of one channel; neighbouring threads take neighbouring channels.
template <class In, class W, class Out>
__global__ void conv1d_kernel(const Conv1dArgs<In, W, Out> a) {
  const std::int64_t thread = thread_index(), item = blockIdx.y;
  if (thread >= a.threads()) return;
  const int co = static_cast<int>(thread % a.cout);
  const std::int64_t first = thread / a.cout * kTile;
  const std::int64_t steps = a.lengths ? a.lengths[item] : a.steps;
  const std::int64_t valid = a.made(steps), last = min(first + kTile, a.made(a.steps));

  float sum[kTile] = {};
  const W* weights = a.weight + (co / kPanel) * static_cast<std::int64_t>(a.kernel) * a.cin * kPanel + co % kPanel;
  for (int k = 0; k < a.kernel && first < valid; ++k, weights += static_cast<std::int64_t>(a.cin) * kPanel) {
    const In* rows[kTile];
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const std::int64_t at = (first + i) * a.stride + static_cast<std::int64_t>(k) * a.dilation - a.left;
      const std::int64_t t = padded_step(at, steps, a.reflect);
      rows[i] = t < 0 ? nullptr : a.x.data + item * a.x.item + t * a.x.step;
    }
    accumulate(sum, rows, a.x.channel, weights, a.cin, a.pre_slope);
  }

  const float bias = widen(a.bias[co]);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    const std::int64_t t = first + i;
    if (t >= last) break;
    float v = sum[i] + bias;
    if (a.residual.data && t < valid) {
      v += widen(a.residual.data[item * a.residual.item + co * a.residual.channel + t * a.residual.step]);
    }
    if (a.sum.data) v += a.sum.data[item * a.sum.item + co * a.sum.channel + t * a.sum.step];
    v = leaky(v * a.scale, a.post_slope);
    if (a.tanh) v = tanhf(v);
    a.y.data[item * a.y.item + co * a.y.channel + t * a.y.step] = narrow<Out>(t < valid ? v : 0.0f);
  }
}

template <class In, class W, class Out>
void conv1d(const Conv1dArgs<In, W, Out>& args, std::int64_t items, Stream stream) {
  launch(conv1d_kernel<In, W, Out>, args.threads(), items, stream, args);
}

}  // namespace fastvoc::cuda
