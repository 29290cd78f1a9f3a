// Elementary functions on vectors, good to 2e-7 relative.
#pragma once

#include "vec.h"

namespace fastvoc::FASTVOC_ISA {

typedef std::int32_t IntVec __attribute__((vector_size(FASTVOC_WIDTH * sizeof(std::int32_t))));

inline Vec broadcast(float v) { return Vec{} + v; }

inline __attribute__((always_inline)) Vec absolute(Vec x) { return (Vec)((IntVec)x & 0x7fffffff); }

// The nearest whole number n to x is what this less kWhole leaves; its low bits, as kWhole has none there, are those of n.
constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23
inline __attribute__((always_inline)) Vec with_whole(Vec x) { return x + broadcast(kWhole); }

// 2^n of such a sum.
inline __attribute__((always_inline)) Vec power_of_two(Vec sum) { return (Vec)(((IntVec)sum << 23) + 0x3f800000); }

// e^x for 0 <= x <= 80: range reduction by ln 2 in two parts, degree-6 polynomial.
inline Vec exp_positive(Vec x) {
  const Vec whole = with_whole(x * 1.44269504f), n = whole - broadcast(kWhole);
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec q = broadcast(1.394121424e-3f);
  q = q * r + 8.363235074e-3f;
  q = q * r + 4.166637413e-2f;
  q = q * r + 1.666657665e-1f;
  q = q * r + 0.5f;
  return (1.0f + (r + r * r * q)) * power_of_two(whole);
}

// tanh: an odd polynomial below 0.625, 1 - 2 / (e^2|x| + 1) above; NaN stays NaN.
inline Vec tanh(Vec x) {
  const Vec magnitude = absolute(x);
  const Vec s = x * x;
  Vec p = broadcast(-6.112582906e-3f);
  p = p * s + 2.100954898e-2f;
  p = p * s - 5.385391474e-2f;
  p = p * s + 1.333279288e-1f;
  p = p * s - 3.333332920e-1f;
  const Vec small = x + x * s * p;
  const Vec doubled = magnitude + magnitude;
  const Vec large = 1.0f - 2.0f / (exp_positive(lesser(broadcast(20.0f), doubled)) + 1.0f);
  return magnitude < 0.625f ? small : (x < 0.0f ? -large : large);
}

// x - n * pi for whole n: pi in two parts where a product is not rounded before it is subtracted, else in three short ones.
inline __attribute__((always_inline)) Vec less_pi(Vec x, Vec n) {
#if FASTVOC_WIDTH > 4
  return (x - n * 3.14159274f) - n * -8.74227766e-8f;
#else
  return ((x - n * 3.140625f) - n * 9.67502593994140625e-4f) - n * 1.509957990978376e-7f;
#endif
}

// sin^2(x), good to 3e-7: x less the nearest multiple of pi, then a polynomial in its square. Beyond 1e5 the phase is lost, as
// it is in x itself; the result stays within 0..1.
inline Vec sin_squared(Vec x) {
  const Vec n = with_whole(x * 0.318309886f) - broadcast(kWhole);
  const Vec r = less_pi(x, n);
  const Vec q = lesser(r * r, broadcast(2.4674011f));
  Vec p = broadcast(-3.620745474e-6f);
  p = p * q + 1.392924169e-4f;
  p = p * q - 3.172300057e-3f;
  p = p * q + 4.444313422e-2f;
  p = p * q - 3.333330750e-1f;
  return q + q * q * p;
}

// 2^x for x <= 0; below -126 as at -126.
inline Vec exp2_negative(Vec x) {
  const Vec bounded = greater(x, broadcast(-126.0f));
  const Vec whole = with_whole(bounded), r = bounded - (whole - broadcast(kWhole));
  Vec p = broadcast(1.3264748e-3f);
  p = p * r + 9.671513e-3f;
  p = p * r + 5.5507336e-2f;
  p = p * r + 0.24022242f;
  p = p * r + 0.693147f;
  return (p * r + 1.0f) * power_of_two(whole);
}

// x * Phi(x) with the exact normal distribution, as max(x, 0) - |x| * Phi(-|x|); log2 of Phi(-t) + 1 is t times a polynomial,
// fitted on [0, 8] so that the result is off by 3e-8 at most. NaN stays NaN.
inline Vec gelu(Vec x) {
  const Vec magnitude = absolute(x);
  const Vec t = lesser(magnitude, broadcast(8.0f));
  Vec p = broadcast(-6.8947327e-7f);
  p = p * t + 1.2348231e-5f;
  p = p * t - 5.0693758e-5f;
  p = p * t - 4.8404792e-4f;
  p = p * t + 7.5485716e-3f;
  p = p * t - 5.2860346e-2f;
  p = p * t - 0.45907518f;
  p = p * t - 1.1511228f;
  return (x < 0.0f ? Vec{} : x) - t * exp2_negative(p * t - 1.0f);
}

// e^x - 1 for x <= 0, without cancellation near 0; NaN stays NaN.
inline Vec expm1_negative(Vec x) {
  const Vec bounded = greater(broadcast(-30.0f), x);
  const Vec whole = with_whole(bounded * 1.44269504f), n = whole - broadcast(kWhole);
  const Vec r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec q = broadcast(1.394121424e-3f);
  q = q * r + 8.363235074e-3f;
  q = q * r + 4.166637413e-2f;
  q = q * r + 1.666657665e-1f;
  q = q * r + 0.5f;
  const Vec power = power_of_two(whole);
  return power * (r + r * r * q) + (power - 1.0f);
}

// ELU with alpha 1; NaN stays NaN.
inline Vec elu(Vec x) {
  return x > 0.0f ? x : expm1_negative(x);
}

// 1 / (1 + e^-x); NaN stays NaN.
inline Vec sigmoid(Vec x) {
  const Vec q = 1.0f / (1.0f + exp_positive(lesser(broadcast(80.0f), absolute(x))));
  return x < 0.0f ? q : 1.0f - q;
}

}  // namespace fastvoc::FASTVOC_ISA
