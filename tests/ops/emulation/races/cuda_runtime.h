// CUDA's shared-memory limits of kernels as a slow host would see them: every call takes a while.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

inline thread_local int device = 0;
inline std::atomic<int> limits[2] = {48 * 1024, 48 * 1024};  // of one kernel on each device
inline std::atomic<int> settings = 0;

inline void sleep() { std::this_thread::sleep_for(std::chrono::microseconds(50)); }

inline cudaError_t cudaGetDevice(int* now) {
  *now = device;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int of) {
  *value = of == 0 ? 227 * 1024 : 163 * 1024;
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
  ++settings;
  sleep();
  limits[device] = bytes;
  sleep();
  return cudaSuccess;
}
