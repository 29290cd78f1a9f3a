// bfloat16 on vectors: products of pairs summed in float32, and conversions.
#pragma once

#include "args.h"
#include "vec.h"

namespace fastvoc::FASTVOC_ISA {

// Two neighbouring bfloat16 numbers, the first in the lower half.
using Pair = std::uint32_t;
typedef std::uint32_t PairVec __attribute__((vector_size(FASTVOC_WIDTH * sizeof(Pair)), may_alias));
typedef std::uint32_t PairVecUnaligned
    __attribute__((vector_size(FASTVOC_WIDTH * sizeof(Pair)), aligned(1), may_alias));
typedef std::uint16_t HalfVec __attribute__((vector_size(FASTVOC_WIDTH * sizeof(std::uint16_t))));

inline __attribute__((always_inline)) PairVec load_pairs(const Pair* p) {
  return *reinterpret_cast<const PairVecUnaligned*>(p);
}

// sum + first(w) * first(x) + second(w) * second(x) in every lane.
inline __attribute__((always_inline)) Vec dot_pairs(Vec sum, PairVec w, PairVec x) {
#ifdef FASTVOC_BF16
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
#else
  sum += (Vec)(w << 16) * (Vec)(x << 16);
  return sum + (Vec)(w & 0xffff0000u) * (Vec)(x & 0xffff0000u);
#endif
}

inline __attribute__((always_inline)) Vec dot_pairs(Vec sum, PairVec w, Pair x) { return dot_pairs(sum, w, PairVec{} + x); }

inline float widen(Bf16 v) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(v.bits) << 16); }

// To the nearest bfloat16, ties to even; NaN stays NaN.
inline Bf16 narrow(float v) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, v);
  if (v != v) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline __attribute__((always_inline)) Vec load(const Bf16* p) {
  HalfVec halves;
  std::memcpy(&halves, p, sizeof halves);
  return (Vec)(__builtin_convertvector(halves, PairVec) << 16);
}

inline __attribute__((always_inline)) HalfVec to_halves(Vec v) {
#ifdef FASTVOC_BF16
  return (HalfVec)_mm512_cvtneps_pbh((__m512)v);
#else
  const PairVec bits = (PairVec)v;
  const PairVec rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return __builtin_convertvector(v == v ? rounded : (bits >> 16 | 0x40), HalfVec);
#endif
}

inline __attribute__((always_inline)) void store(Bf16* p, Vec v) {
  const HalfVec halves = to_halves(v);
  std::memcpy(p, &halves, sizeof halves);
}

// The nearest bfloat16 numbers, as floats.
inline __attribute__((always_inline)) Vec rounded(Vec v) {
  return (Vec)(__builtin_convertvector(to_halves(v), PairVec) << 16);
}

inline void round_row(float* x, std::ptrdiff_t count) {
  std::ptrdiff_t i = 0;
  for (; i + FASTVOC_WIDTH <= count; i += FASTVOC_WIDTH) store(x + i, rounded(load(x + i)));
  for (; i < count; ++i) x[i] = widen(narrow(x[i]));
}

// `count` floats rounded, and back.
inline void narrow_row(const float* x, Bf16* y, std::ptrdiff_t count) {
  const std::ptrdiff_t whole = count - count % FASTVOC_WIDTH;
  for (std::ptrdiff_t i = 0; i < whole; i += FASTVOC_WIDTH) store(y + i, load(x + i));
  for (std::ptrdiff_t i = whole; i < count; ++i) y[i] = narrow(x[i]);
}

inline void narrow_row(const float* x, float* y, std::ptrdiff_t count) { std::copy_n(x, count, y); }

inline float widen(float v) { return v; }

// `count` elements as floats, by vectors.
template <class Given>
inline void widen_vectors(const Given* x, float* y, std::ptrdiff_t count) {
  std::ptrdiff_t i = 0;
  for (; i + FASTVOC_WIDTH <= count; i += FASTVOC_WIDTH) store(y + i, load(x + i));
  for (; i < count; ++i) y[i] = widen(x[i]);
}

// `count` elements as floats, which hold them exactly, and back.
inline void widen_row(const float* x, float* y, std::ptrdiff_t count) { std::copy_n(x, count, y); }
inline void widen_row(const Bf16* x, float* y, std::ptrdiff_t count) { std::transform(x, x + count, y, [](Bf16 v) { return widen(v); }); }
inline void widen_row(const std::uint8_t* x, float* y, std::ptrdiff_t count) { std::copy_n(x, count, y); }
inline void widen_back(const float* x, float* y, std::ptrdiff_t count) { std::copy_n(x, count, y); }
inline void widen_back(const float* x, Bf16* y, std::ptrdiff_t count) {
  std::transform(x, x + count, y, [](float v) { return narrow(v); });
}
inline void widen_back(const float* x, std::uint8_t* y, std::ptrdiff_t count) {
  std::transform(x, x + count, y, [](float v) { return static_cast<std::uint8_t>(v); });
}

}  // namespace fastvoc::FASTVOC_ISA
