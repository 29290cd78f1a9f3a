// Shared by the plain kernels: packed panels, arguments of convolutions, padding, and which thread does what.
#pragma once

#include "common/view.h"
#include "cuda/activation.cuh"

namespace fastvoc::cuda {

constexpr int kPanel = 16;  // output channels side by side in packed weights
constexpr int kTile = 8;    // output steps of one thread: each weight that it loads serves them all

enum class Pad : int { kZeros = 0, kReflect = 1, kReplicate = 2 };  // of fastvoc/ops/conv1d.py

__host__ __device__ inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

__host__ __device__ inline std::int64_t padded(std::int64_t channels) { return ceil_div(channels, kPanel) * kPanel; }

// The shape of a convolution, as Conv1dCall (common/calls.h) has it; `tiles`: its weights are packed for tensor cores.
struct ConvShape {
  int cout;
  int cin;
  int kernel = 1;
  int stride = 1;
  int dilation = 1;
  int left = 0;
  int right = 0;
  int pad = 0;
  bool tiles = false;
};

// What convolutions have in common. `residual`, `beside`, `lengths` and `bias` may be null; `beside` [items, further, made]
// joins the inputs of a convolution of one tap, without an activation.
template <class In, class W, class Out>
struct ConvArgs {
  View<const In> x;
  View<Out> y;
  View<const In> residual;
  View<const In> beside;
  const W* weight;
  const W* bias;
  const std::int64_t* lengths;
  std::int64_t steps;
  int cout;
  int cin;
  int further;
  int kernel;
  int stride;
  int dilation;
  int left;
  int right;
  Pad pad;
  Act pre;
  Act post;

  // The steps at whose ends padding reflects: a signal that is too short gets zeros first.
  __device__ std::int64_t mirrored(std::int64_t valid) const {
    const std::int64_t least = (left > right ? left : right) + 1;
    return pad == Pad::kReflect && valid < least ? least : valid;
  }

  // Takes what a shape with the names of ConvShape says.
  template <class Shape>
  void set(const Shape& shape) {
    cout = shape.cout;
    cin = shape.cin;
    kernel = shape.kernel;
    stride = shape.stride;
    dilation = shape.dilation;
    left = shape.left;
    right = shape.right;
    pad = static_cast<Pad>(shape.pad);
  }
};

__device__ inline std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// The step that padded step t reads; negative for a zero.
__device__ inline std::int64_t padded_step(std::int64_t t, std::int64_t steps, Pad pad) {
  if (t >= 0 && t < steps) return t;
  if (pad == Pad::kZeros) return -1;
  if (pad == Pad::kReplicate) return t < 0 ? 0 : steps - 1;
  return t < 0 ? -t : 2 * (steps - 1) - t;
}

// Adds weights[ci * kPanel] * act(rows[i][ci * channel]) to sum[i] for every input channel; a null row is zeros.
template <ActKind kAct, class In, class W>
__device__ void accumulate_as(float (&sum)[kTile], const In* const (&rows)[kTile], std::int64_t channel,
                              const W* weights, int channels, const Act& act) {
  for (int ci = 0; ci < channels; ++ci) {
    const float w = widen(weights[ci * kPanel]);
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      if (rows[i] != nullptr) sum[i] += w * activate_as<kAct>(act, widen(rows[i][ci * channel]), ci);
    }
  }
}

template <class In, class W>
__device__ void accumulate(float (&sum)[kTile], const In* const (&rows)[kTile], std::int64_t channel, const W* weights,
                           int channels, const Act& act) {
  with_kind(act.kind, [&](auto kind) {
    accumulate_as<decltype(kind)::value>(sum, rows, channel, weights, channels, act);
  });
}

}  // namespace fastvoc::cuda
