// Random numbers by position, a vector of positions at a time.
#pragma once

#include "common/philox.h"
#include "trig.h"

namespace fastvoc::FASTVOC_ISA {

#if defined(__x86_64__)

typedef std::uint64_t LongVec __attribute__((vector_size(FASTVOC_WIDTH * sizeof(std::uint32_t))));

// The products of the lower 32 bits of each 64, in one instruction that compilers do not find by themselves.
inline __attribute__((always_inline)) LongVec multiply_low(LongVec a, LongVec b) {
#if FASTVOC_WIDTH == 16
  return (LongVec)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);  // GCC 12 warns of the plain one
#elif FASTVOC_WIDTH == 8
  return (LongVec)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (LongVec)_mm_mul_epu32((__m128i)a, (__m128i)b);
#endif
}

// Four random words for each of the positions from `position` on. A word takes the lower half of a lane of 64 bits; what the
// upper half holds is never read.
inline void random_words(std::uint64_t position, std::uint32_t group, std::uint64_t key, WordVec words[4]) {
  const LongVec zero{}, numbers = (LongVec)(lane_numbers() >> 1) & 0xffffffffu;
  LongVec c0[2], c1[2], c2[2], c3[2];
  for (int half = 0; half < 2; ++half) {
    c0[half] = numbers + (position + static_cast<std::uint64_t>(half * FASTVOC_WIDTH / 2));
    c1[half] = c0[half] >> 32;
    c2[half] = zero + group;
    c3[half] = zero;
  }
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    for (int half = 0; half < 2; ++half) {
      const LongVec even = multiply_low(c0[half], zero + 0xd2511f53u), odd = multiply_low(c2[half], zero + 0xcd9e8d57u);
      c0[half] = (odd >> 32) ^ c1[half] ^ (zero + k0);
      c1[half] = odd;
      c2[half] = (even >> 32) ^ c3[half] ^ (zero + k1);
      c3[half] = even;
    }
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  words[0] = even_lanes((WordVec)c0[0], (WordVec)c0[1]);
  words[1] = even_lanes((WordVec)c1[0], (WordVec)c1[1]);
  words[2] = even_lanes((WordVec)c2[0], (WordVec)c2[1]);
  words[3] = even_lanes((WordVec)c3[0], (WordVec)c3[1]);
}

#else

// Four random words for each of the positions from `position` on.
inline void random_words(std::uint64_t position, std::uint32_t group, std::uint64_t key, WordVec words[4]) {
  std::uint32_t out[4][FASTVOC_WIDTH];
  for (int i = 0; i < FASTVOC_WIDTH; ++i) {
    const PhiloxWords drawn = philox(position + static_cast<std::uint64_t>(i), group, 0, key);
    for (int j = 0; j < 4; ++j) out[j][i] = drawn.word[j];
  }
  std::memcpy(words, out, sizeof out);
}

#endif

// A pair of standard normal numbers for each lane, by Box and Muller.
inline void normal_pair(WordVec radius, WordVec turn, Vec& first, Vec& second) {
  const Vec r = square_root(-2.0f * log_uniform(radius));
  Vec sine, cosine;
  sincos_cycles(turn, sine, cosine);
  first = r * cosine;
  second = r * sine;
}

// Uniform in [0, 1), multiples of 2^-24.
inline Vec uniform(WordVec word) { return __builtin_convertvector((IntVec)(word >> 8), Vec) * 0x1p-24f; }

}  // namespace fastvoc::FASTVOC_ISA
