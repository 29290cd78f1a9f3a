// How a kernel comes by more shared memory than every device grants unasked.
#pragma once

#include <cuda_runtime.h>

#include <mutex>
#include <set>
#include <utility>

namespace fastvoc::cuda {

constexpr int kGranted = 48 * 1024;

// Shared memory that one block may have on a device.
inline int shared_limit_of(int device) {
  int bytes = 0;
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes;
}

// Shared memory that one block may have on the current device.
inline int shared_limit() {
  int device = 0;
  cudaGetDevice(&device);
  return shared_limit_of(device);
}

// Lets blocks of `kernel` have `shared` bytes on the current device. What a kernel may have is a property of it, not of
// a launch: the most is asked for, once, so that no thread lowers it between another one's question and launch.
template <class Args>
void allow_shared(void (*kernel)(Args), int shared) {
  static std::mutex mutex;
  static std::set<std::pair<const void*, int>> allowed;
  if (shared <= kGranted) return;
  int device = 0;
  cudaGetDevice(&device);
  const std::pair<const void*, int> key(reinterpret_cast<const void*>(kernel), device);
  const std::lock_guard<std::mutex> lock(mutex);
  if (allowed.count(key) != 0) return;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit_of(device));
  if (status == cudaSuccess) allowed.insert(key);
}

}  // namespace fastvoc::cuda
