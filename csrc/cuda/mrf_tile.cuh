// Layers of one residual block on a tile of time: activations in shared memory, the residual in registers, halo recomputed.
#pragma once

#include "cuda/common.cuh"
#include "cuda/warp_tile.cuh"

namespace fastvoc::cuda {

constexpr int kMaxChain = 32;  // convolutions of one block

// One convolution of the chain, its padding on the left, and the activation before it.
struct ChainConv {
  int kernel;
  int dilation;
  int left;
  Act act;
};

// h = h + conv2(act(conv1(act(h)))) for each layer. `state_in` float32 takes the place of x where it is not null. The
// result goes to `state_out` where that is not null; else it is added to `sum` where that is given, and becomes y, scaled,
// with `last`, and the new `sum` otherwise. float32 tensors are [items, steps, width].
template <class T>
struct ChainArgs {
  View<const T> x;
  View<T> y;
  const float* state_in;
  float* state_out;
  const float* sum_in;
  float* sum_out;
  const T* weight;  // fragments, from the first convolution of the chain on
  const T* bias;    // [convs, width]
  const std::int64_t* lengths;
  std::int64_t steps;
  std::int64_t weight_steps;
  int channels;
  int convs;
  int depth;
  int made;       // steps of output of one tile
  int lead;       // steps of the tile's first row before its first output, one row for each made by the first convolution
  int halo;       // rows of input beyond those, of the first convolution
  float scale;
  ChainConv conv[kMaxChain];
};

// A tile's shape: warps along time and along channels, 16-row tiles of a warp. `kKeep`: the residual stays in registers,
// else it is read again, which serves one layer only.
template <int kWidthOf, int kWarpsAlong, int kWarpsAcross, int kRowTiles, bool kKeepOf>
struct TileShape {
  static constexpr int kWidth = kWidthOf;
  static constexpr int kAlong = kWarpsAlong;
  static constexpr int kAcross = kWarpsAcross;
  static constexpr int kRows = kRowTiles;
  static constexpr bool kKeep = kKeepOf;
  static constexpr int kColumns = kWidth / 16 / kAcross;  // 16-column tiles of a warp
  static constexpr int kThreads = 32 * kAlong * kAcross;
  static constexpr int kSteps = 16 * kRows * kAlong;
  static constexpr int kStride = row_stride(kWidth);

  // Bytes of shared memory, for `halo` rows of input beyond the tile's.
  template <class T>
  static constexpr int bytes(int halo) {
    return (2 * kSteps + halo) * kStride * 2 + WeightStream<T, kWidth, kThreads>::kBytes;
  }
};

// act(x) of the tile's input rows into shared memory, zeros beside the signal.
template <class T, class S, ActKind kAct>
__device__ void load_rows(const ChainArgs<T>& a, T* to, std::int64_t first, std::int64_t valid, std::int64_t item) {
  const Act& act = a.conv[0].act;
  const T* x = a.x.data + item * a.x.item;
  const float* state = a.state_in ? a.state_in + item * a.steps * S::kWidth : nullptr;
  const bool whole = a.x.channel == 1 && a.x.step % 8 == 0 && reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
  constexpr int kVectors = S::kWidth / 8;
  for (int i = static_cast<int>(threadIdx.x); i < (S::kSteps + a.halo) * kVectors; i += S::kThreads) {
    const int row = i / kVectors, c = i % kVectors * 8;
    const std::int64_t t = first - a.conv[0].left + row;
    Eight<T> out;
    if (t < 0 || t >= valid) {
#pragma unroll
      for (int j = 0; j < 8; ++j) out.v[j] = narrow<T>(0.0f);
    } else if (state) {
      const float* from = state + t * S::kWidth + c;
#pragma unroll
      for (int j = 0; j < 8; ++j) out.v[j] = narrow<T>(activate_as<kAct>(act, from[j], c + j));
    } else if (whole && c + 8 <= a.channels) {
      const auto in = *reinterpret_cast<const Eight<T>*>(x + t * a.x.step + c);
#pragma unroll
      for (int j = 0; j < 8; ++j) out.v[j] = narrow<T>(activate_as<kAct>(act, widen(in.v[j]), c + j));
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const bool inside = c + j < a.channels;
        const float v = inside ? activate_as<kAct>(act, widen(x[(c + j) * a.x.channel + t * a.x.step]), c + j) : 0.0f;
        out.v[j] = narrow<T>(v);
      }
    }
    *reinterpret_cast<Eight<T>*>(to + row * S::kStride + c) = out;
  }
}

// Two neighbouring channels of the block's input at step t.
template <class T, class S>
__device__ inline float2 residual_pair(const ChainArgs<T>& a, std::int64_t item, std::int64_t t, int c) {
  if (a.state_in) return *reinterpret_cast<const float2*>(a.state_in + (item * a.steps + t) * S::kWidth + c);
  const T* at = a.x.data + item * a.x.item + t * a.x.step + c * a.x.channel;
  return {c < a.channels ? widen(at[0]) : 0.0f, c + 1 < a.channels ? widen(at[a.x.channel]) : 0.0f};
}

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T v[2];
};

template <class T>
__device__ inline void store_pair(const ChainArgs<T>& a, std::int64_t item, std::int64_t t, int c, float2 v) {
  T* at = a.y.data + item * a.y.item + t * a.y.step + c * a.y.channel;
  if (c + 1 < a.channels && a.y.channel == 1 && a.y.step % 2 == 0 && a.y.item % 2 == 0) {
    *reinterpret_cast<Pair<T>*>(at) = {narrow<T>(v.x), narrow<T>(v.y)};
    return;
  }
  if (c < a.channels) at[0] = narrow<T>(v.x);
  if (c + 1 < a.channels) at[a.y.channel] = narrow<T>(v.y);
}

// The result of the chain at step t, two channels.
template <class T, class S>
__device__ inline void finish_pair(const ChainArgs<T>& a, std::int64_t item, std::int64_t t, int c, float2 v) {
  const std::int64_t at = (item * a.steps + t) * S::kWidth + c;
  if (a.state_out) {
    *reinterpret_cast<float2*>(a.state_out + at) = v;
    return;
  }
  if (a.sum_in) {
    const float2 before = *reinterpret_cast<const float2*>(a.sum_in + at);
    v = {before.x + v.x, before.y + v.y};
  }
  if (a.sum_out) {
    *reinterpret_cast<float2*>(a.sum_out + at) = v;
  } else {
    store_pair(a, item, t, c, {v.x * a.scale, v.y * a.scale});
  }
}

template <class T, class S, ActKind kAct>
__global__ void __launch_bounds__(S::kThreads, 1) chain_kernel(const __grid_constant__ ChainArgs<T> a) {
  using Weights = WeightStream<T, S::kWidth, S::kThreads>;
  const std::int64_t item = blockIdx.y, begin = static_cast<std::int64_t>(blockIdx.x) * a.made;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  const std::int64_t end = begin + a.made < a.steps ? begin + a.made : a.steps;
  if (!a.state_out && !a.sum_out) {
    const std::int64_t from = begin < valid ? valid : begin, pairs = (end - from) * (S::kWidth / 2);
    for (std::int64_t i = threadIdx.x; i < pairs; i += S::kThreads) {
      store_pair(a, item, from + i / (S::kWidth / 2), static_cast<int>(i % (S::kWidth / 2)) * 2, {0.0f, 0.0f});
    }
  }
  if (begin >= valid) return;

  T* const ring = reinterpret_cast<T*>(shared_memory());
  T* const input = ring + kRingSlots * Weights::kChunk;
  T* const inner = input + (S::kSteps + a.halo) * S::kStride;
  Weights weights(ring, a.weight, a.weight_steps);
  const std::int64_t first = begin - a.lead;  // the step of row 0
  load_rows<T, S, kAct>(a, input, first, valid, item);

  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const int row = warp % S::kAlong * S::kRows * 16, column = warp / S::kAlong * S::kColumns * 16;
  WarpSums<S::kKeep ? S::kRows : 1, S::kKeep ? S::kColumns : 1> state;
  const auto residual = [&](int r, int c) {
    const std::int64_t t = first + row + r;
    return t >= 0 && t < valid ? residual_pair<T, S>(a, item, t, column + c) : float2{0.0f, 0.0f};
  };
  if constexpr (S::kKeep) {
    each_pair<S::kRows, S::kColumns>([&](int r, int c, int m, int n, int k) {
      const float2 at = residual(r, c);
      state[m][n][k] = at.x;
      state[m][n][k + 1] = at.y;
    });
  }
  __syncthreads();

  int low = 0, high = S::kSteps;  // the rows that are needed of what the convolution at work makes
  const T* source = input;
  int source_rows = S::kSteps + a.halo, ahead = 0;  // `ahead`: what a tap reads before its row
  for (int i = 0; i < a.convs; ++i) {
    const ChainConv& conv = a.conv[i];
    if (i > 0) {
      ahead = conv.left;
      low += conv.left;
      high -= (conv.kernel - 1) * conv.dilation - conv.left;
    }
    const bool needed = row < high && row + 16 * S::kRows > low;
    WarpSums<S::kRows, S::kColumns> sums;
    clear<S::kRows, S::kColumns>(sums);
    for (int tap = 0; tap < conv.kernel; ++tap) {
      int rows[S::kRows];
#pragma unroll
      for (int m = 0; m < S::kRows; ++m) {
        const int r = row + 16 * m + lane % 16 + tap * conv.dilation - ahead;
        rows[m] = min(max(r, 0), source_rows - 1) * S::kStride + lane / 16 * 8;
      }
#pragma unroll
      for (int k = 0; k < S::kWidth / 16; ++k) {
        const T* step = weights.next();
        if (needed) add_step<T, S::kRows, S::kColumns>(sums, source + 16 * k, rows, step + column / 16 * kFragment);
      }
    }

    const bool ends_layer = (i + 1) % a.depth == 0, ends = i + 1 == a.convs;
    T* const target = source == input ? inner : input;
    const T* bias = a.bias + i * S::kWidth + column;
    const Act& act = a.conv[ends ? i : i + 1].act;
    if (needed) {
      each_pair<S::kRows, S::kColumns>([&](int r, int c, int m, int n, int k) {
        float2 h{sums[m][n][k] + widen(bias[c]), sums[m][n][k + 1] + widen(bias[c + 1])};
        if (ends_layer) {
          if constexpr (S::kKeep) {
            state[m][n][k] += h.x;
            state[m][n][k + 1] += h.y;
            h = {state[m][n][k], state[m][n][k + 1]};
          } else {
            const float2 before = residual(r, c);
            h = {h.x + before.x, h.y + before.y};
          }
        }
        const std::int64_t t = first + row + r;
        if (ends) {
          if (t >= begin && t < end && t < valid) finish_pair<T, S>(a, item, t, column + c, h);
          return;
        }
        Pair<T> out{narrow<T>(0.0f), narrow<T>(0.0f)};
        if (t >= 0 && t < valid) {
          out = {narrow<T>(activate_as<kAct>(act, h.x, column + c)), narrow<T>(activate_as<kAct>(act, h.y, column + c + 1))};
        }
        *reinterpret_cast<Pair<T>*>(target + (row + r) * S::kStride + column + c) = out;
      });
    }
    source = target;
    source_rows = S::kSteps;
    __syncthreads();
  }
}

}  // namespace fastvoc::cuda
