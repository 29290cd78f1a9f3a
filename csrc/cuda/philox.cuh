// Philox4x32-10, random numbers by position (Salmon et al. 2011), as fastvoc/ops/_philox.py.
#pragma once

#include "cuda/platform.cuh"

namespace fastvoc::cuda {

struct PhiloxWords {
  std::uint32_t word[4];
};

// Four random words of the counter (position, group, domain) under a key of 64 bits.
__device__ inline PhiloxWords philox(std::uint64_t position, std::uint32_t group, std::uint32_t domain,
                                     std::uint64_t key) {
  std::uint32_t c0 = static_cast<std::uint32_t>(position), c1 = static_cast<std::uint32_t>(position >> 32);
  std::uint32_t c2 = group, c3 = domain;
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t even = static_cast<std::uint64_t>(c0) * 0xd2511f53u;
    const std::uint64_t odd = static_cast<std::uint64_t>(c2) * 0xcd9e8d57u;
    c0 = static_cast<std::uint32_t>(odd >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(odd);
    c2 = static_cast<std::uint32_t>(even >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(even);
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  return {{c0, c1, c2, c3}};
}

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
