// lstm as one launch for each layer's input projection and one persistent launch for its recurrence: every block keeps the
// recurrent weights of its units in shared memory over all steps, and a grid barrier separates the steps.
#pragma once

#include "cuda/common.cuh"
#include "cuda/ptx.cuh"

namespace fastvoc::cuda {

constexpr int kGates = 4;  // input, forget, cell, output
constexpr int kLstmThreads = 256;
constexpr int kLstmItems = 8;  // items of one group, at most: each weight that a block reads serves them all

// One layer and direction. `gates` [items, steps, 4 hidden] float32 holds the input projection; `w_hh` is [hidden, 4, hidden]
// by unit, gate and input, `bias` [4, hidden] the sum of both. `h` [2, items, hidden] and `c` [items, hidden] are float32, the
// first half of `h` the state before and after; `barrier` counts arrivals for each group of items, from 0.
template <class T, class Out>
struct LstmArgs {
  const float* gates;
  const float* bias;
  const T* w_hh;
  float* h;
  float* c;
  View<Out> y;
  View<const T> skip;  // may be null
  const std::int64_t* lengths;
  unsigned* barrier;
  std::int64_t items;
  std::int64_t steps;
  std::int64_t first_group;
  int hidden;
  int units;  // of one block
  bool reverse;

  __host__ __device__ int weight_bytes() const {
    return (units * kGates * hidden * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
  }
  int shared(int together) const {
    return weight_bytes() + together * (hidden + units * kGates) * static_cast<int>(sizeof(float));
  }
  __device__ std::int64_t valid(std::int64_t item) const { return lengths ? lengths[item] : steps; }
};

__device__ inline float sigmoid(float v) { return 1.0f / (1.0f + expf(-v)); }

// Waits until the blocks of this group have arrived `expected` times in all. They all run at the same time.
__device__ inline void group_barrier(unsigned* count, unsigned expected) {
  __syncthreads();
  if (threadIdx.x == 0) {
    add_release(count, 1);
    while (load_acquire(count) < expected) {
    }
  }
  __syncthreads();
}

// The recurrent part of the gates of this block's units, for each item: a warp a row of weights, its lanes' parts added in a
// fixed tree.
template <class T, int kItems>
__device__ void recurrent_sums(const T* weights, const float* state, float* sums, int rows, int hidden) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int row = static_cast<int>(threadIdx.x / 32); row < rows; row += kLstmThreads / 32) {
    float sum[kItems] = {};
    for (int k = lane; k < hidden; k += 32) {
      const float w = widen(weights[row * hidden + k]);
#pragma unroll
      for (int i = 0; i < kItems; ++i) sum[i] = fmaf(w, state[i * hidden + k], sum[i]);
    }
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
#pragma unroll
      for (int reach = 16; reach > 0; reach /= 2) sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], reach);
    }
    if (lane == 0) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) sums[row * kItems + i] = sum[i];
    }
  }
}

template <class T, class Out, int kItems>
__global__ void __launch_bounds__(kLstmThreads, 1) lstm_kernel(const __grid_constant__ LstmArgs<T, Out> a) {
  const int hidden = a.hidden, thread = static_cast<int>(threadIdx.x);
  const int first_unit = static_cast<int>(blockIdx.x) * a.units, units = min(a.units, hidden - first_unit);
  const std::int64_t group = a.first_group + blockIdx.y, first = group * kItems;
  const int items = static_cast<int>(a.items - first < kItems ? a.items - first : kItems);
  T* const weights = reinterpret_cast<T*>(shared_memory());
  auto* const state = reinterpret_cast<float*>(shared_memory() + a.weight_bytes());
  float* const sums = state + kItems * hidden;
  for (int i = thread; i < units * kGates * hidden; i += kLstmThreads) {
    weights[i] = a.w_hh[static_cast<std::int64_t>(first_unit) * kGates * hidden + i];
  }
  std::int64_t longest = 0;
  for (int i = 0; i < items; ++i) longest = max(longest, a.valid(first + i));
  for (int i = thread; i < items * units; i += kLstmThreads) {
    const std::int64_t item = first + i / units;
    Out* y = a.y.data + item * a.y.item + (first_unit + i % units) * a.y.channel;
    for (std::int64_t t = a.valid(item); t < a.steps; ++t) y[t * a.y.step] = narrow<Out>(0.0f);
  }

  for (std::int64_t s = 0; s < longest; ++s) {
    const float* from = a.h + s % 2 * a.items * hidden;
    float* const to = a.h + (s + 1) % 2 * a.items * hidden;
    for (int i = thread; i < kItems * hidden; i += kLstmThreads) {
      state[i] = i < items * hidden ? load_relaxed(from + first * hidden + i) : 0.0f;
    }
    __syncthreads();
    recurrent_sums<T, kItems>(weights, state, sums, units * kGates, hidden);
    __syncthreads();
    for (int i = thread; i < items * units; i += kLstmThreads) {
      const int unit = first_unit + i % units, j = i / units;
      const std::int64_t item = first + j, n = a.valid(item), at = item * hidden + unit;
      if (s >= n) {  // the state stays as it is
        to[at] = state[j * hidden + unit];
        continue;
      }
      const std::int64_t t = a.reverse ? n - 1 - s : s;
      const float* gate = a.gates + (item * a.steps + t) * kGates * hidden + unit;
      float v[kGates];
#pragma unroll
      for (int g = 0; g < kGates; ++g) {
        v[g] = gate[g * hidden] + a.bias[g * hidden + unit] + sums[(i % units * kGates + g) * kItems + j];
      }
      const float c = sigmoid(v[1]) * a.c[at] + sigmoid(v[0]) * tanhf(v[2]);
      const float h = sigmoid(v[3]) * tanhf(c);
      a.c[at] = c;
      to[at] = h;
      const float skip = a.skip.data ? widen(a.skip.data[item * a.skip.item + unit * a.skip.channel + t * a.skip.step]) : 0.0f;
      a.y.data[item * a.y.item + unit * a.y.channel + t * a.y.step] = narrow<Out>(h + skip);
    }
    group_barrier(a.barrier + group, static_cast<unsigned>(s + 1) * gridDim.x);
  }
  if (longest % 2 == 0) return;
  for (int i = thread; i < items * units; i += kLstmThreads) {
    const std::int64_t at = (first + i / units) * hidden + first_unit + i % units;
    a.h[at] = a.h[a.items * hidden + at];
  }
}

// Runs a layer over all items by `places` blocks at once; false where no block of few enough units fits into shared memory.
template <int kItems, class T, class Out>
bool lstm_groups(LstmArgs<T, Out> args, Stream stream, std::int64_t places) {
  const std::int64_t groups = ceil_div(args.items, kItems);
  // The fewest units with which all groups run at the same time; the most that fit, in several launches, if there are none.
  for (args.units = 1; args.units < args.hidden; ++args.units) {
    LstmArgs<T, Out> more = args;
    ++more.units;
    if (ceil_div(args.hidden, args.units) * groups <= places || more.shared(kItems) > shared_limit()) break;
  }
  const std::int64_t blocks = ceil_div(args.hidden, args.units);
  if (args.shared(kItems) > shared_limit() || blocks > places) return false;
  for (std::int64_t together = places / blocks; args.first_group < groups; args.first_group += together) {
    if (!launch_together(lstm_kernel<T, Out, kItems>, blocks, min(together, groups - args.first_group), kLstmThreads,
                         args.shared(kItems), stream, args)) {
      return lstm_groups<kItems>(args, stream, places / 2);  // the first launch is the largest: nothing has run
    }
  }
  return true;
}

template <class T, class Out>
bool lstm_layer(const LstmArgs<T, Out>& args, Stream stream) {
  const std::int64_t places = blocks_at_once();
  return args.items == 1 ? lstm_groups<1>(args, stream, places) : lstm_groups<kLstmItems>(args, stream, places);
}

}  // namespace fastvoc::cuda
