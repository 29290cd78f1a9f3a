// The kernels' platform in plain C++: a launch runs the threads one after the other, numbers are rounded in software.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __grid_constant__

#define __launch_bounds__(...)
#define __syncthreads() emulation::Block::current()->barrier()

#include "fibers.h"

namespace emulation {

// A thread's own T, made when it first asks.
template <class T>
T& of_thread() {
  auto& fiber = *Fiber::current();
  if (!fiber.own) fiber.own = std::shared_ptr<void>(new T, [](void* p) { delete static_cast<T*>(p); });
  return *static_cast<T*>(fiber.own.get());
}

inline int shared_limit = 227 * 1024;
inline std::int64_t multiprocessors = 6;
inline std::int64_t granted = 6;  // of them to this process, which its questions do not tell
inline int device = -1;           // current in the library's own runtime
inline bool backwards = false;  // whether a block's last thread runs first
inline bool dry = false;        // whether launches are counted only
inline bool hopper = false;     // whether it has the instructions of cuda/hopper.cuh
inline bool early = false;      // whether its bulk copies are there at once, else as late as may be
inline std::int64_t launches = 0;

inline void begin_launch() {
  if (device != 0) fail("a launch without a current device");
  ++launches;
}

}  // namespace emulation

struct float2 {
  float x, y;
};

enum cudaError_t { cudaSuccess };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaSetDevice(int index) {
  emulation::device = index;
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) { return ""; }

inline float sinpif(float x) { return static_cast<float>(std::sin(M_PI * x)); }
inline float cospif(float x) { return static_cast<float>(std::cos(M_PI * x)); }

namespace fastvoc::cuda {

using std::isfinite;
using std::max;
using std::min;

struct BFloat16 {
  std::uint16_t bits;
};

struct Half {
  std::uint16_t bits;
};

inline float widen(float v) { return v; }
inline float widen(BFloat16 v) { return std::bit_cast<float>(std::uint32_t{v.bits} << 16); }

inline float widen(Half v) {
  const int exponent = v.bits >> 10 & 31, fraction = v.bits & 1023;
  float magnitude = std::ldexp(static_cast<float>(fraction + (exponent ? 1024 : 0)), (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = fraction ? NAN : INFINITY;
  return v.bits & 0x8000 ? -magnitude : magnitude;
}

template <class T>
T narrow(float v);

template <>
inline float narrow<float>(float v) {
  return v;
}

template <>
inline BFloat16 narrow<BFloat16>(float v) {
  const auto bits = std::bit_cast<std::uint32_t>(v);
  if (std::isnan(v)) return {0x7fc0};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <>
inline Half narrow<Half>(float v) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(v) ? 0x8000 : 0);
  if (std::isnan(v)) return {0x7e00};
  const float magnitude = std::fabs(v);
  if (magnitude >= 65520.0f) return {static_cast<std::uint16_t>(sign | 0x7c00)};
  int exponent = magnitude > 0 ? std::max(std::ilogb(magnitude), -14) : -14;
  auto units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return {static_cast<std::uint16_t>(sign | (units + (exponent + 14) * 1024))};
}

using Stream = void*;

inline unsigned char* shared_memory() { return emulation::Block::current()->memory(); }

inline int shared_limit() { return emulation::shared_limit; }

template <class Args>
void launch(void (*kernel)(Args), std::int64_t threads, std::int64_t items, Stream, const Args& args) {
  constexpr unsigned kBlock = 32;
  emulation::begin_launch();
  if (emulation::dry) return;
  blockDim = {kBlock, 1};
  gridDim = {static_cast<unsigned>((threads + kBlock - 1) / kBlock), static_cast<unsigned>(items)};
  for (std::int64_t item = 0; item < items; ++item) {
    for (std::int64_t block = 0; block * kBlock < threads; ++block) {
      for (unsigned thread = 0; thread < kBlock; ++thread) {
        blockIdx = {static_cast<unsigned>(block), static_cast<unsigned>(item)};
        threadIdx = {thread, 0};
        kernel(args);
      }
    }
  }
}

// Runs `together` blocks at a time, thread by thread.
template <class Args>
void run_blocks(void (*kernel)(Args), std::int64_t blocks, std::int64_t items, int threads, int shared, const Args& args,
                std::int64_t together) {
  if (shared > emulation::shared_limit) emulation::fail("a block asks for more shared memory than there is");
  emulation::begin_launch();
  if (emulation::dry) return;
  blockDim = {static_cast<unsigned>(threads), 1};
  gridDim = {static_cast<unsigned>(blocks), static_cast<unsigned>(items)};
  const auto body = [&] { kernel(args); };
  for (std::int64_t first = 0; first < blocks * items; first += together) {
    std::vector<std::unique_ptr<emulation::Block>> running;
    for (std::int64_t i = first; i < std::min(first + together, blocks * items); ++i) {
      running.push_back(std::make_unique<emulation::Block>(static_cast<unsigned>(i % blocks),
                                                           static_cast<unsigned>(i / blocks), blockDim.x,
                                                           static_cast<std::size_t>(shared), body));
    }
    for (bool done = false; !done;) {
      bool moved = false;
      done = true;
      for (auto& block : running) {
        if (block->done()) continue;
        moved |= block->advance(emulation::backwards);
        done &= block->done();
      }
      for (auto& block : running) {
        if (!done && !moved && block->unblocked) moved = block->unblocked();
      }
      if (!done && !moved) emulation::fail("the threads wait for each other");
    }
  }
}

template <class Args>
void launch_blocks(void (*kernel)(Args), std::int64_t blocks, std::int64_t items, int threads, int shared, Stream,
                   const Args& args) {
  run_blocks(kernel, blocks, items, threads, shared, args, 1);
}

inline std::int64_t blocks_at_once() { return emulation::multiprocessors; }

template <class Args>
bool launch_together(void (*kernel)(Args), std::int64_t blocks, std::int64_t items, int threads, int shared, Stream,
                     const Args& args) {
  if (blocks * items > emulation::multiprocessors) emulation::fail("more blocks wait for each other than can run");
  if (blocks * items > emulation::granted) return false;
  run_blocks(kernel, blocks, items, threads, shared, args, blocks * items);
  return true;
}

template <class T>
void clear_memory(T* p, std::int64_t count, Stream) {
  std::fill(p, p + count, T{});
}

template <class T>
void copy_memory(T* to, const T* from, std::int64_t count, Stream) {
  std::copy(from, from + count, to);
}

}  // namespace fastvoc::cuda
