// Philox4x32-10, random numbers by position (Salmon et al. 2011), as fastvoc/ops/_philox.py.
#pragma once

#include <cstdint>

namespace fastvoc {

struct PhiloxWords {
  std::uint32_t word[4];
};

// Four random words of the counter (position, group, domain) under a key of 64 bits; `constexpr` lets devices call it, too.
constexpr PhiloxWords philox(std::uint64_t position, std::uint32_t group, std::uint32_t domain, std::uint64_t key) {
  std::uint32_t c0 = static_cast<std::uint32_t>(position), c1 = static_cast<std::uint32_t>(position >> 32);
  std::uint32_t c2 = group, c3 = domain;
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#if defined(__CUDACC__)
#pragma unroll
#else
#pragma GCC unroll 10
#endif
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

}  // namespace fastvoc
