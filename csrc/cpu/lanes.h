// Moves values between the lanes of vectors.
#pragma once

#include "math.h"

namespace fastvoc::FASTVOC_ISA {

typedef std::uint32_t WordVec __attribute__((vector_size(FASTVOC_WIDTH * sizeof(std::uint32_t))));

// The lanes L... of a followed by b.
template <int... L>
inline __attribute__((always_inline)) Vec shuffle(Vec a, Vec b, std::integer_sequence<int, L...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, L...);
#else
  return __builtin_shuffle(a, b, IntVec{L...});
#endif
}

// f(0), f(1), ... f(width - 1), computed by the compiler.
template <class F, int... L>
constexpr auto lane_sequence(F, std::integer_sequence<int, L...>) {
  return std::integer_sequence<int, F{}(L)...>{};
}

using Lanes = std::make_integer_sequence<int, FASTVOC_WIDTH>;

template <int... L>
constexpr WordVec words_of(std::integer_sequence<int, L...>) {
  return WordVec{static_cast<std::uint32_t>(L)...};
}

// 0, 1, 2, ...
inline WordVec lane_numbers() { return words_of(Lanes{}); }

// Exchanges the off-diagonal quarters of every pair of blocks of `H` lanes: a keeps its even blocks and takes b's.
template <int H>
inline __attribute__((always_inline)) void exchange(Vec& a, Vec& b) {
  constexpr auto low = [](int lane) { return lane & H ? lane - H + FASTVOC_WIDTH : lane; };
  constexpr auto high = [](int lane) { return lane & H ? lane + FASTVOC_WIDTH : lane + H; };
  const Vec first = shuffle(a, b, lane_sequence(low, Lanes{}));
  b = shuffle(a, b, lane_sequence(high, Lanes{}));
  a = first;
}

template <int H>
inline __attribute__((always_inline)) void transpose_level(Vec* rows) {
  if constexpr (H > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < FASTVOC_WIDTH; ++i) {
      if (!(i & H)) exchange<H>(rows[i], rows[i + H]);
    }
    transpose_level<H / 2>(rows);
  }
}

// Lane j of row i and lane i of row j change places, for FASTVOC_WIDTH rows.
inline __attribute__((always_inline)) void transpose(Vec* rows) { transpose_level<FASTVOC_WIDTH / 2>(rows); }

// The even lanes of a, then those of b.
inline __attribute__((always_inline)) WordVec even_lanes(WordVec a, WordVec b) {
  constexpr auto even = [](int lane) { return 2 * lane; };
  return (WordVec)shuffle((Vec)a, (Vec)b, lane_sequence(even, Lanes{}));
}

}  // namespace fastvoc::FASTVOC_ISA
