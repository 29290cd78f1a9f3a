// conv2d: y = pool(leaky_relu(conv(x) + bias + residual)) over time and bands, rows of [bands, channels].
#pragma once

#include "cuda/common.cuh"

namespace fastvoc::cuda {

// The channel of a view is band * channels + channel. Weights are panels [time, ceil(cout / 16), across, cin, 16]; `time` and
// `across` are odd, `residual` may be null.
template <class T>
struct Conv2dArgs {
  View<const T> x;
  View<T> y;
  View<const T> residual;
  const T* weight;
  const T* bias;
  const std::int64_t* lengths;
  std::int64_t steps;
  int cout;
  int cin;
  int time;
  int across;
  int bands;
  int pool;
  float slope;

  __host__ __device__ int made() const { return bands / pool; }
  __host__ __device__ int together() const { return pool < kTile ? kTile / pool : 1; }  // outputs of one thread
  __host__ __device__ std::int64_t threads() const { return steps * ceil_div(made(), together()) * cout; }
  std::int64_t weights() const { return std::int64_t{time} * padded(cout) * across * cin; }
};

// The sums of kTile neighbouring bands from `first` on, of step t and one output channel.
template <class T>
__device__ void conv2d_sums(const Conv2dArgs<T>& a, std::int64_t item, std::int64_t t, int first, std::int64_t valid, int co,
                            float (&sum)[kTile]) {
  const float bias = widen(a.bias[co]);
#pragma unroll
  for (int i = 0; i < kTile; ++i) sum[i] = bias;
  const std::int64_t panels = ceil_div(a.cout, kPanel), tap = static_cast<std::int64_t>(a.cin) * kPanel;
  for (int k = 0; k < a.time; ++k) {
    const std::int64_t at = t + k - a.time / 2;
    if (at < 0 || at >= valid) continue;
    const T* step = a.x.data + item * a.x.item + at * a.x.step;
    const T* weights = a.weight + (k * panels + co / kPanel) * a.across * tap + co % kPanel;
    for (int j = 0; j < a.across; ++j, weights += tap) {
      const T* rows[kTile];
#pragma unroll
      for (int i = 0; i < kTile; ++i) {
        const int band = first + i + j - a.across / 2;
        rows[i] = band < 0 || band >= a.bands ? nullptr : step + static_cast<std::int64_t>(band) * a.cin * a.x.channel;
      }
      accumulate_as<ActKind::kLeaky>(sum, rows, a.x.channel, weights, a.cin, identity());
    }
  }
}

// One thread computes neighbouring pooled bands of one channel; neighbouring threads take neighbouring channels.
template <class T>
__global__ void conv2d_kernel(const __grid_constant__ Conv2dArgs<T> a) {
  const std::int64_t thread = thread_index(), item = blockIdx.y;
  if (thread >= a.threads()) return;
  const int co = static_cast<int>(thread % a.cout), together = a.together(), made = a.made();
  const std::int64_t tiles = ceil_div(made, together), t = thread / a.cout / tiles;
  const int begin = static_cast<int>(thread / a.cout % tiles) * together, end = min(begin + together, made);
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  T* y = a.y.data + item * a.y.item + t * a.y.step + co * a.y.channel;
  const Act act{ActKind::kLeaky, a.slope, nullptr, nullptr};
  float best = -INFINITY;
  for (int first = begin * a.pool; first < end * a.pool; first += kTile) {
    float sum[kTile] = {};
    if (t < valid) conv2d_sums(a, item, t, first, valid, co, sum);
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const std::int64_t band = first + i;
      if (band >= end * a.pool) break;
      float v = sum[i];
      if (t < valid) {
        if (a.residual.data) {
          const std::int64_t at = (band * a.cout + co) * a.residual.channel;
          v += widen(a.residual.data[item * a.residual.item + t * a.residual.step + at]);
        }
        v = activate_as<ActKind::kLeaky>(act, v, co);
      }
      if (v > best || v != v) best = v;  // NaN stays
      if ((band + 1) % a.pool == 0) {
        y[band / a.pool * a.cout * a.y.channel] = narrow<T>(best);
        best = -INFINITY;
      }
    }
  }
}

template <class T>
void conv2d(const Conv2dArgs<T>& args, std::int64_t items, Stream stream) {
  launch(conv2d_kernel<T>, args.threads(), items, stream, args);
}

}  // namespace fastvoc::cuda
