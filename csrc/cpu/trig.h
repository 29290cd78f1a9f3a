// Exponential, logarithm, sine, cosine and angle on vectors over their whole range, good to 2e-7 of the largest value.
#pragma once

#include "lanes.h"

namespace fastvoc::FASTVOC_ISA {

inline bool any(IntVec mask) {
  std::int64_t words[FASTVOC_WIDTH / 2], all = 0;
  std::memcpy(words, &mask, sizeof mask);
  for (std::int64_t w : words) all |= w;
  return all != 0;
}

// `of` with the sign bit of `sign` flipped in where that is set.
inline Vec flip_sign(Vec of, IntVec sign) { return (Vec)((IntVec)of ^ (sign & INT32_MIN)); }

// e^x: 0 and infinity beyond float's range, NaN for NaN.
inline Vec exp(Vec x) {
  const Vec bounded = lesser(broadcast(89.0f), greater(broadcast(-104.0f), x));
  const Vec n = with_whole(bounded * 1.44269504f) - broadcast(kWhole);
  const Vec r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec q = broadcast(1.9875691500e-4f);
  q = q * r + 1.3981999507e-3f;
  q = q * r + 8.3334519073e-3f;
  q = q * r + 4.1665795894e-2f;
  q = q * r + 1.6666665459e-1f;
  q = q * r + 0.5f;
  const IntVec power = __builtin_convertvector(n, IntVec);
  const IntVec half = power >> 1;  // 2^power in two factors, as 2^128 is none
  const Vec first = (Vec)((half + 127) << 23), second = (Vec)((power - half + 127) << 23);
  return ((1.0f + (r + r * r * q)) * first) * second;
}

// Sine and cosine of r in -pi/4..pi/4, turned by `quarters` times pi/2.
inline void turned(Vec r, IntVec quarters, Vec& sine, Vec& cosine) {
  const Vec z = r * r;
  Vec p = broadcast(-1.9515295891e-4f);
  p = p * z + 8.3321608736e-3f;
  p = p * z - 1.6666654611e-1f;
  const Vec s = r + r * z * p;
  Vec q = broadcast(2.443315711809948e-5f);
  q = q * z - 1.388731625493765e-3f;
  q = q * z + 4.166664568298827e-2f;
  const Vec c = (1.0f - 0.5f * z) + z * z * q;
  const IntVec odd = (quarters & 1) != 0;
  sine = flip_sign(odd ? c : s, quarters << 30);
  cosine = flip_sign(odd ? s : c, (quarters + 1) << 30);
}

// Sine and cosine of x within +-12800: x less the nearest multiple of pi/2 in three parts.
inline void sincos_near(Vec x, Vec& sine, Vec& cosine) {
  const Vec n = with_whole(x * 0.636619772f) - broadcast(kWhole);
  const Vec r = ((x - n * 1.5703125f) - n * 4.837512969970703125e-4f) - n * 7.54978995489188216e-8f;
  turned(r, __builtin_convertvector(n, IntVec), sine, cosine);
}

// Sine and cosine of any x: far out, where float no longer holds the multiple of pi/2, lane by lane in double.
inline void sincos(Vec x, Vec& sine, Vec& cosine) {
  sincos_near(x, sine, cosine);
  const IntVec far = (absolute(x) <= 12800.0f) == 0;  // NaN too
  if (__builtin_expect(any(far), 0)) {
    for (int i = 0; i < FASTVOC_WIDTH; ++i) {
      if (!far[i]) continue;
      sine[i] = static_cast<float>(std::sin(static_cast<double>(x[i])));
      cosine[i] = static_cast<float>(std::cos(static_cast<double>(x[i])));
    }
  }
}

// Sine and cosine of a phase in units of 2^-32 cycles.
inline void sincos_cycles(WordVec phase, Vec& sine, Vec& cosine) {
  const WordVec quarters = (phase + (1u << 29)) >> 30;
  const Vec r = __builtin_convertvector((IntVec)(phase - (quarters << 30)), Vec) * 1.46291807926716e-9f;  // 2 pi / 2^32
  turned(r, (IntVec)quarters, sine, cosine);
}

inline Vec sin_cycles(WordVec phase) {
  Vec sine, cosine;
  sincos_cycles(phase, sine, cosine);
  return sine;
}

// log(1 + f) + e * log(2) for 1 + f in sqrt(1/2)..sqrt(2).
inline Vec log_of(Vec f, Vec e) {
  const Vec z = f * f;
  Vec p = broadcast(7.0376836292e-2f);
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const Vec y = (f * z * p - e * 2.12194440e-4f) - 0.5f * z;
  return (f + y) + e * 0.693359375f;
}

// log((k + 1/2) / 2^31) of the upper 31 bits k of a word, without cancellation where that is near 1.
inline Vec log_uniform(WordVec word) {
  const IntVec k = (IntVec)(word >> 1);
  const Vec u = (__builtin_convertvector(k, Vec) + 0.5f) * 0x1p-31f;
  const Vec rest = (__builtin_convertvector(0x7fffffff - k, Vec) + 0.5f) * 0x1p-31f;  // 1 - u
  const IntVec near = k >= 0x60000000;
  IntVec bits = (IntVec)u;
  const IntVec e = ((bits - 0x3f3504f3) >> 23);  // of u = 2^e * m, m in sqrt(1/2)..sqrt(2)
  const Vec m = (Vec)(bits - (e << 23));
  return log_of(near ? -rest : m - 1.0f, near ? Vec{} : __builtin_convertvector(e, Vec));
}

// Angle of x + iy for y other than 0; 0 for 0 / 0; NaN where either is.
inline Vec angle(Vec y, Vec x) {
  const Vec ax = absolute(x), ay = absolute(y);
  const IntVec steep = ay > ax;
  const Vec large = steep ? ay : ax, small = steep ? ax : ay;
  const IntVec reduce = small > large * 0.4142135624f;
  const Vec above = reduce ? small - large : small;
  const Vec below = reduce ? small + large : large;
  const Vec t = above / (below == 0.0f ? broadcast(1.0f) : below);
  const Vec z = t * t;
  Vec p = broadcast(8.05374449538e-2f);
  p = p * z - 1.38776856032e-1f;
  p = p * z + 1.99777106478e-1f;
  p = p * z - 3.33329491539e-1f;
  Vec a = t + t * z * p;
  a = reduce ? a + 0.785398163397f : a;
  a = steep ? 1.57079632679f - a : a;
  a = x < 0.0f ? 3.14159265359f - a : a;
  return flip_sign(a, (IntVec)y);
}

// +pi where x < 0, else 0; NaN stays NaN.
inline Vec real_angle(Vec x) {
  const Vec a = x < 0.0f ? broadcast(3.14159265359f) : Vec{};
  return x == x ? a : x;
}

// Root of x >= 0 by Newton's iteration.
inline Vec square_root(Vec x) {
  Vec y = (Vec)(0x5f3759df - ((IntVec)x >> 1));
  for (int i = 0; i < 2; ++i) y = y * (1.5f - 0.5f * x * y * y);
  const Vec s = x * y;
  return s + 0.5f * y * (x - s * s);
}

}  // namespace fastvoc::FASTVOC_ISA
