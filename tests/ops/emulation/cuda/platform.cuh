// The kernels' platform in plain C++: a launch runs the threads one after the other, numbers are rounded in software.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#define __host__
#define __device__
#define __global__

struct Index {
  unsigned x, y;
};
inline thread_local Index blockIdx, threadIdx, blockDim;

namespace fastvoc::cuda {

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

using Stream = int;

template <class Args>
void launch(void (*kernel)(Args), std::int64_t threads, std::int64_t items, Stream, const Args& args) {
  constexpr unsigned kBlock = 32;
  blockDim = {kBlock, 1};
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

}  // namespace fastvoc::cuda
