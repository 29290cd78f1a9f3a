// A convolution as matrix products of warps: rows of activations in shared memory, weights streamed through a ring.
#pragma once

#include "cuda/activation.cuh"
#include "cuda/ptx.cuh"

namespace fastvoc::cuda {

constexpr int kFragment = 256;  // elements of a 16 x 16 tile of packed weights, in the order in which a warp's lanes use them
constexpr int kRingSlots = 3;
constexpr int kChunkBytes = 4096;

// Elements between rows of `channels` in shared memory: 16 bytes more, so that eight rows lie in different banks.
__host__ __device__ constexpr int row_stride(int channels) { return channels + 8; }

// What one access to memory takes.
template <class T>
struct alignas(16) Eight {
  T v[8];
};

// The weights of many convolutions, one after the other, each step of 16 inputs by `kColumns` outputs, come through shared
// memory in chunks of whole steps.
template <class T, int kColumns, int kThreads>
class WeightStream {
 public:
  static constexpr int kStep = kColumns / 16 * kFragment;
  static constexpr int kSteps = kChunkBytes / 2 / kStep > 0 ? kChunkBytes / 2 / kStep : 1;  // of a chunk
  static constexpr int kChunk = kSteps * kStep;
  static constexpr int kBytes = kRingSlots * kChunk * static_cast<int>(sizeof(T));

  __device__ WeightStream(T* ring, const T* weights, std::int64_t steps)
      : ring_(ring), weights_(weights), left_(steps * kStep) {
    for (int i = 0; i + 1 < kRingSlots; ++i) fetch(i);
  }

  // The weights of the next step. Every thread of the block calls it as often as the others.
  __device__ const T* next() {
    if (step_ == 0) {
      wait_copies<kRingSlots - 2>();
      __syncthreads();
      fetch((slot_ + kRingSlots - 1) % kRingSlots);
    }
    const T* at = ring_ + slot_ * kChunk + step_ * kStep;
    if (++step_ == kSteps) {
      step_ = 0;
      slot_ = slot_ + 1 == kRingSlots ? 0 : slot_ + 1;
    }
    return at;
  }

 private:
  __device__ void fetch(int slot) {
    const std::int64_t count = left_ < kChunk ? left_ : kChunk;
    for (int i = static_cast<int>(threadIdx.x) * 8; i < count; i += kThreads * 8) {
      copy_async(ring_ + slot * kChunk + i, weights_ + i);
    }
    commit_copies();
    weights_ += count;
    left_ -= count;
  }

  T* ring_;
  const T* weights_;
  std::int64_t left_;
  int slot_ = 0;
  int step_ = 0;
};

// What one warp makes: kRows x 16 rows by kColumns x 16 columns; [i][j] is rows 16i.., columns 8j...
template <int kRows, int kColumns>
using WarpSums = float[kRows][2 * kColumns][4];

// Adds one step: this lane reads its row of the i-th 16 x 16 tile of activations at `source + rows[i]`; `weights` are the
// warp's first tile of the step.
template <class T, int kRows, int kColumns>
__device__ inline void add_step(WarpSums<kRows, kColumns>& sums, const T* source, const int (&rows)[kRows],
                                const T* weights) {
  struct alignas(16) Words {
    std::uint32_t w[4];
  };
  Words b[kColumns];
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    b[j] = *reinterpret_cast<const Words*>(weights + j * kFragment + static_cast<int>(threadIdx.x % 32) * 8);
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    std::uint32_t a[4];
    load_matrices(a, source + rows[i]);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      multiply_add<T>(sums[i][2 * j], a, b[j].w[0], b[j].w[1]);
      multiply_add<T>(sums[i][2 * j + 1], a, b[j].w[2], b[j].w[3]);
    }
  }
}

template <int kRows, int kColumns>
__device__ inline void clear(WarpSums<kRows, kColumns>& sums) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < 2 * kColumns; ++j) {
#pragma unroll
      for (int k = 0; k < 4; ++k) sums[i][j][k] = 0.0f;
    }
  }
}

// Calls f(row, column, i, j, k) for all pairs of neighbouring sums that this lane holds, [i][j][k] and [i][j][k + 1].
template <int kRows, int kColumns, class F>
__device__ inline void each_pair(const F& f) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < 2 * kColumns; ++j) {
#pragma unroll
      for (int k = 0; k < 4; k += 2) f(16 * i + lane / 4 + 4 * k, 8 * j + lane % 4 * 2, i, j, k);
    }
  }
}

}  // namespace fastvoc::cuda
