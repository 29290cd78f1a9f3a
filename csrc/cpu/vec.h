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

inline __attribute__((always_inline)) Vec leaky(Vec v, float slope) {
  return v > 0.0f ? v : v * slope;
}

}  // namespace fastvoc::FASTVOC_ISA
