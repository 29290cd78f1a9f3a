// Random numbers of the distributions that nsf_source draws, of the words of Philox.
#pragma once

#include "common/philox.h"
#include "cuda/platform.cuh"

namespace fastvoc::cuda {

// Uniform in [0, 1), multiples of 2^-24.
__device__ inline float uniform(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

// A pair of standard normal numbers, by Box and Muller. Near 1 the logarithm is taken of what is missing to 1.
__device__ inline float2 normal_pair(std::uint32_t radius, std::uint32_t turn) {
  const std::uint32_t top = radius >> 1;
  const float u = (static_cast<float>(top) + 0.5f) * 0x1p-31f;
  const float missing = (static_cast<float>(0x7fffffffu - top) + 0.5f) * 0x1p-31f;
  const float r = sqrtf(-2.0f * (top < 0x40000000u ? logf(u) : log1pf(-missing)));
  const float half_turns = static_cast<float>(static_cast<std::int32_t>(turn)) * 0x1p-31f;
  return {r * cospif(half_turns), r * sinpif(half_turns)};
}

}  // namespace fastvoc::cuda
