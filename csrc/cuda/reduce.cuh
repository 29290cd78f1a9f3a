// Sums over the threads of a warp or a block, in a fixed tree.
#pragma once

#include "cuda/ptx.cuh"

namespace fastvoc::cuda {

// Every lane has the sum.
__device__ inline float sum_of_warp(float v) {
#pragma unroll
  for (int reach = 16; reach > 0; reach /= 2) v += __shfl_xor_sync(0xffffffffu, v, reach);
  return v;
}

// Every thread has the sum; `shared` has room for one number each.
template <int kThreads>
__device__ float sum_of_block(float* shared, float v) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  shared[thread] = v;
  for (int reach = kThreads / 2; reach > 0; reach /= 2) {
    __syncthreads();
    if (thread < reach) shared[thread] += shared[thread + reach];
  }
  __syncthreads();
  return shared[0];
}

}  // namespace fastvoc::cuda
