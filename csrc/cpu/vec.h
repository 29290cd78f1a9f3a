// The SIMD layer: a vector of W floats that the compiler maps to the registers of the target being built.
#pragma once

namespace fastvoc::FASTVOC_ISA {

template <int W>
struct VecOf {
  typedef float type __attribute__((vector_size(W * sizeof(float))));
  typedef float unaligned __attribute__((vector_size(W * sizeof(float)), aligned(sizeof(float))));
};

using Vec = VecOf<FASTVOC_WIDTH>::type;

inline __attribute__((always_inline)) Vec load(const float* p) {
  return *reinterpret_cast<const VecOf<FASTVOC_WIDTH>::unaligned*>(p);
}

inline __attribute__((always_inline)) void store(float* p, Vec v) {
  *reinterpret_cast<VecOf<FASTVOC_WIDTH>::unaligned*>(p) = v;
}

// a < b ? a : b and a > b ? a : b in one instruction, which GCC does not make of them for a constant b: b where either is NaN.
// The plain intrinsics of AVX-512 make GCC 12 warn.
inline __attribute__((always_inline)) Vec lesser(Vec a, Vec b) {
#if FASTVOC_WIDTH == 16
  return (Vec)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
#elif FASTVOC_WIDTH == 8
  return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

inline __attribute__((always_inline)) Vec greater(Vec a, Vec b) {
#if FASTVOC_WIDTH == 16
  return (Vec)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#elif FASTVOC_WIDTH == 8
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

inline __attribute__((always_inline)) Vec leaky(Vec v, float slope) {
  return v > 0.0f ? v : v * slope;
}

}  // namespace fastvoc::FASTVOC_ISA
