// What one multiplication of the register tile does, by the type of what it multiplies (args.h, Numbers).
#pragma once

#include "activation.h"
#include "bf16.h"

namespace fastvoc::FASTVOC_ISA {

constexpr int kPanel = 16;
constexpr int kVecs = kPanel / FASTVOC_WIDTH;

// sum + the products of one group of channels of every lane's output; `Word` holds a group of activations.
template <class Element>
struct Dot {
  using Word = float;
  using Weights = Vec;
  using Sum = Vec;

  static inline __attribute__((always_inline)) Weights load_weights(const float* w) { return load(w); }
  static inline __attribute__((always_inline)) Sum add(Sum sum, Weights w, Word x) { return sum + w * x; }
};

template <>
struct Dot<Bf16> {
  using Word = Pair;
  using Weights = PairVec;
  using Sum = Vec;

  static inline __attribute__((always_inline)) Weights load_weights(const Bf16* w) {
    return load_pairs(reinterpret_cast<const Pair*>(w));
  }
  static inline __attribute__((always_inline)) Sum add(Sum sum, Weights w, Word x) { return dot_pairs(sum, w, x); }
};

// Four bytes without a sign by four with one, summed as integers.
template <>
struct Dot<std::uint8_t> {
  using Word = Pair;
  using Weights = PairVec;
  using Sum = IntVec;

  static inline __attribute__((always_inline)) Weights load_weights(const std::int8_t* w) {
    return load_pairs(reinterpret_cast<const Pair*>(w));
  }

  static inline __attribute__((always_inline)) Sum add(Sum sum, Weights w, Word x) {
#ifdef FASTVOC_BF16
    return (Sum)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(static_cast<int>(x)), (__m512i)w);
#else
    const IntVec words = (IntVec)w;
    sum += (words << 24 >> 24) * static_cast<int>(x & 0xff);
    sum += (words << 16 >> 24) * static_cast<int>(x >> 8 & 0xff);
    sum += (words << 8 >> 24) * static_cast<int>(x >> 16 & 0xff);
    return sum + (words >> 24) * static_cast<int>(x >> 24);
#endif
  }
};

// Writes what an activation makes, in the type in which it is multiplied.
inline __attribute__((always_inline)) void put(float* y, Vec v, const Act&) { store(y, v); }
inline __attribute__((always_inline)) void put(Bf16* y, Vec v, const Act&) { store(y, v); }
inline __attribute__((always_inline)) void put(std::uint8_t* y, Vec v, const Act& act) {
  typedef std::uint8_t Bytes __attribute__((vector_size(FASTVOC_WIDTH)));
  const Vec scaled = v * act.steps, low = broadcast(-act.zero), high = low + 255.0f;
  const Vec above = scaled > low ? scaled : low, bounded = above < high ? above : high;
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits, ties to even.
  const IntVec whole = (IntVec)(bounded + 12582912.0f) - (0x4b400000 - static_cast<std::int32_t>(act.zero));
  const Bytes bytes = __builtin_convertvector(whole, Bytes);
  std::memcpy(y, &bytes, sizeof bytes);
}

// What padding with zeros holds.
template <class Element>
Element zero_of(const Act& act) {
  if constexpr (std::is_same_v<Element, std::uint8_t>) return static_cast<std::uint8_t>(act.zero);
  return Element{};
}

}  // namespace fastvoc::FASTVOC_ISA
