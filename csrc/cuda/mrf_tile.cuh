// Residual blocks, or some layers of one, on a tile of time: activations in shared memory, halo recomputed.
#pragma once

#include "cuda/common.cuh"
#include "cuda/warp_tile.cuh"

namespace fastvoc::cuda {

constexpr int kMaxChain = 32;  // convolutions of one launch
constexpr int kMaxRuns = 8;    // blocks of one launch

// One convolution of a launch, its padding on the left, and the activation before it.
struct ChainConv {
  int kernel;
  int dilation;
  int left;
  Act act;
};

// Layers of one block: their convolutions, the steps of the tile's first row before its first output, and the rows that the
// first convolution makes.
struct ChainRun {
  int convs;
  int lead;
  int rows;
};

// h = h + conv2(act(conv1(act(h)))) for each layer of a run, which begins with x, or with `state_in`, float32, where that
// is not null. The result of one run goes to `state_out` where that is not null. Else results add up in `sum`, from the
// first run on with `adds`, and the last becomes y, scaled, with `ends`. float32 tensors are [items, steps, width], but
// `tiles`, [items, tiles, rows, width]: what a tile itself reads again.
template <class T>
struct ChainArgs {
  View<const T> x;
  View<T> y;
  const float* state_in;
  float* state_out;
  float* sum;
  float* tiles;
  const T* weight;  // fragments, from the first convolution of the launch on
  const T* bias;    // [convs, width]
  const std::int64_t* lengths;
  std::int64_t steps;
  std::int64_t weight_steps;
  int channels;
  int depth;
  int made;  // steps of output of one tile
  int halo;  // rows of input beyond the tile's, at most
  int runs;
  bool adds;
  bool ends;
  float scale;
  ChainRun run[kMaxRuns];
  ChainConv conv[kMaxChain];
};

// A tile's shape: warps along time and along channels, 16-row tiles of a warp. `kKeep`: the residual stays in registers,
// else it waits in device memory, which the cache holds, and a launch takes one run, for want of registers.
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
  static constexpr int kBlocks = kWidth == 16 ? 2 : 1;  // that share a multiprocessor
  static constexpr int kStride = row_stride(kWidth);

  // Bytes of shared memory, for `halo` rows of input beyond the tile's.
  template <class T>
  static constexpr int bytes(int halo) {
    return (2 * kSteps + halo) * kStride * 2 + WeightStream<T, kWidth, kThreads>::kBytes;
  }
};

// act(x) of `rows` rows into shared memory, the first of them at step `first`; zeros beside the signal.
template <class T, class S, ActKind kAct>
__device__ void load_rows(const ChainArgs<T>& a, T* to, const Act& act, std::int64_t first, int rows, std::int64_t valid,
                          std::int64_t item) {
  const T* x = a.x.data + item * a.x.item;
  const float* state = a.state_in ? a.state_in + item * a.steps * S::kWidth : nullptr;
  const bool whole = a.x.channel == 1 && a.x.step % 8 == 0 && reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
  constexpr int kVectors = S::kWidth / 8;
  for (int i = static_cast<int>(threadIdx.x); i < rows * kVectors; i += S::kThreads) {
    const int row = i / kVectors, c = i % kVectors * 8;
    const std::int64_t t = first + row;
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

// Two neighbouring channels of x at step t.
template <class T>
__device__ inline float2 input_pair(const ChainArgs<T>& a, std::int64_t item, std::int64_t t, int c) {
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

// The result of a run at step t, two channels.
template <class T, class S>
__device__ inline void finish_pair(const ChainArgs<T>& a, int run, std::int64_t item, std::int64_t t, int c, float2 v) {
  const std::int64_t at = (item * a.steps + t) * S::kWidth + c;
  if (a.state_out) {
    *reinterpret_cast<float2*>(a.state_out + at) = v;
    return;
  }
  if (a.adds || run > 0) {
    const float2 before = *reinterpret_cast<const float2*>(a.sum + at);
    v = {before.x + v.x, before.y + v.y};
  }
  if (a.ends && run + 1 == (S::kKeep ? a.runs : 1)) {
    store_pair(a, item, t, c, {v.x * a.scale, v.y * a.scale});
  } else {
    *reinterpret_cast<float2*>(a.sum + at) = v;
  }
}

template <class T, class S, ActKind kAct>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) chain_kernel(const __grid_constant__ ChainArgs<T> a) {
  using Weights = WeightStream<T, S::kWidth, S::kThreads>;
  const std::int64_t item = blockIdx.y, begin = static_cast<std::int64_t>(blockIdx.x) * a.made;
  const std::int64_t valid = a.lengths ? a.lengths[item] : a.steps;
  const std::int64_t end = begin + a.made < a.steps ? begin + a.made : a.steps;
  if (a.ends) {
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
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const int row = warp % S::kAlong * S::kRows * 16, column = warp / S::kAlong * S::kColumns * 16;

  const ChainConv* conv = a.conv;
  const T* bias = a.bias + column;
#pragma unroll 1
  for (int run = 0; run < (S::kKeep ? a.runs : 1); ++run) {
    const std::int64_t first = begin - a.run[run].lead;  // the step of row 0
    int source_rows = a.run[run].rows + (conv->kernel - 1) * conv->dilation;
    load_rows<T, S, kAct>(a, input, conv->act, first - conv->left, source_rows, valid, item);

    // Where the residual lies: in x, or in float32 with this index of row 0.
    const float* residuals = a.state_in;
    std::int64_t residual_row = item * a.steps + first;
    WarpSums<S::kKeep ? S::kRows : 1, S::kKeep ? S::kColumns : 1> state;
    const auto residual = [&](int r, int c) {
      const std::int64_t t = first + row + r;
      if (t < 0 || t >= valid) return float2{0.0f, 0.0f};
      if (!residuals) return input_pair(a, item, t, column + c);
      return *reinterpret_cast<const float2*>(residuals + (residual_row + row + r) * S::kWidth + column + c);
    };
    if constexpr (S::kKeep) {
      each_pair<S::kRows, S::kColumns>([&](int r, int c, int m, int n, int k) {
        const float2 at = residual(r, c);
        state[m][n][k] = at.x;
        state[m][n][k + 1] = at.y;
      });
    }
    __syncthreads();

    int low = 0, high = a.run[run].rows;  // the rows that are needed of what the convolution at work makes
    const T* source = input;
    int ahead = 0;  // what a tap reads before its row
    for (int i = 0; i < a.run[run].convs; ++i, ++conv, bias += S::kWidth) {
      const int kernel = conv->kernel, dilation = conv->dilation;
      if (i > 0) {
        ahead = conv->left;
        low += conv->left;
        high -= (kernel - 1) * dilation - conv->left;
      }
      const bool needed = row < high && row + 16 * S::kRows > low;
      WarpSums<S::kRows, S::kColumns> sums;
      clear<S::kRows, S::kColumns>(sums);
      for (int tap = 0; tap < kernel; ++tap) {
        int rows[S::kRows];
#pragma unroll
        for (int m = 0; m < S::kRows; ++m) {
          const int r = row + 16 * m + lane % 16 + tap * dilation - ahead;
          rows[m] = min(max(r, 0), source_rows - 1) * S::kStride + lane / 16 * 8;
        }
#pragma unroll
        for (int k = 0; k < S::kWidth / 16; ++k) {
          const T* step = weights.next();
          if (needed) add_step<T, S::kRows, S::kColumns>(sums, source + 16 * k, rows, step + column / 16 * kFragment);
        }
      }

      const bool ends_layer = (i + 1) % a.depth == 0, ends = i + 1 == a.run[run].convs;
      T* const target = source == input ? inner : input;
      const Act& act = (ends ? conv : conv + 1)->act;
      float* const kept = a.tiles + ((item * gridDim.x + blockIdx.x) * S::kSteps + row) * S::kWidth + column;
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
              if (!ends) *reinterpret_cast<float2*>(kept + r * S::kWidth + c) = h;
            }
          }
          const std::int64_t t = first + row + r;
          if (ends) {
            if (t >= begin && t < end && t < valid) finish_pair<T, S>(a, run, item, t, column + c, h);
            return;
          }
          Pair<T> out{narrow<T>(0.0f), narrow<T>(0.0f)};
          if (t >= 0 && t < valid) {
            out = {narrow<T>(activate_as<kAct>(act, h.x, column + c)), narrow<T>(activate_as<kAct>(act, h.y, column + c + 1))};
          }
          *reinterpret_cast<Pair<T>*>(target + (row + r) * S::kStride + column + c) = out;
        });
      }
      if (!S::kKeep && ends_layer) {
        residuals = a.tiles;
        residual_row = (item * gridDim.x + blockIdx.x) * S::kSteps;
      }
      source = target;
      source_rows = S::kSteps;
      __syncthreads();
    }
  }
}

}  // namespace fastvoc::cuda
