// What the kernels take from CUDA: number types, launches. Tests put a plain C++ version in this header's place.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/shared_memory.cuh"

namespace fastvoc::cuda {

using Half = __half;
using BFloat16 = __nv_bfloat16;

__device__ inline float widen(float v) { return v; }
__device__ inline float widen(Half v) { return __half2float(v); }
__device__ inline float widen(BFloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ T narrow(float v);
template <>
__device__ inline float narrow<float>(float v) { return v; }
template <>
__device__ inline Half narrow<Half>(float v) { return __float2half_rn(v); }
template <>
__device__ inline BFloat16 narrow<BFloat16>(float v) { return __float2bfloat16_rn(v); }

// The block's dynamic shared memory.
__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char memory[];
  return memory;
}

using Stream = cudaStream_t;

// Runs `kernel` with at least `threads` threads along x for each item along y; the threads do not work together.
template <class Args>
void launch(void (*kernel)(Args), std::int64_t threads, std::int64_t items, Stream stream, const Args& args) {
  constexpr unsigned kBlock = 256;
  const dim3 grid(static_cast<unsigned>((threads + kBlock - 1) / kBlock), static_cast<unsigned>(items));
  kernel<<<grid, kBlock, 0, stream>>>(args);
}

// Runs `blocks` blocks of `threads` threads along x for each item along y; the threads of a block share `shared` bytes.
template <class Args>
void launch_blocks(void (*kernel)(Args), std::int64_t blocks, std::int64_t items, int threads, int shared,
                   Stream stream, const Args& args) {
  allow_shared(kernel, shared);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(items));
  kernel<<<grid, static_cast<unsigned>(threads), static_cast<std::size_t>(shared), stream>>>(args);
}

// Blocks of which one runs on every multiprocessor at the same time.
inline std::int64_t blocks_at_once() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

// As launch_blocks, with all blocks running at the same time, so that they may wait for each other; false where the device
// grants this process fewer at once, as with a limit of its share.
template <class Args>
bool launch_together(void (*kernel)(Args), std::int64_t blocks, std::int64_t items, int threads, int shared,
                     Stream stream, Args args) {
  allow_shared(kernel, shared);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(items));
  void* list[] = {&args};
  const cudaError_t status = cudaLaunchCooperativeKernel(kernel, grid, dim3(static_cast<unsigned>(threads)), list,
                                                         static_cast<std::size_t>(shared), stream);
  if (status != cudaErrorCooperativeLaunchTooLarge) return true;
  cudaGetLastError();  // which would be told of the next launch
  return false;
}

// Fills `count` numbers with zeros.
template <class T>
void clear_memory(T* p, std::int64_t count, Stream stream) {
  cudaMemsetAsync(p, 0, static_cast<std::size_t>(count) * sizeof(T), stream);
}

template <class T>
void copy_memory(T* to, const T* from, std::int64_t count, Stream stream) {
  cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(T), cudaMemcpyDeviceToDevice, stream);
}

}  // namespace fastvoc::cuda
