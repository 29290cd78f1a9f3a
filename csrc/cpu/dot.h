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
  static inline __attribute__((always_inline)) Weights spread(Word x) { return x - Vec{}; }
  static inline __attribute__((always_inline)) Sum add(Sum sum, Weights w, Weights x) { return sum + w * x; }
};

template <>
struct Dot<Bf16> {
  using Word = Pair;
  using Weights = PairVec;
  using Sum = Vec;

  static inline __attribute__((always_inline)) Weights load_weights(const Bf16* w) {
    return load_pairs(reinterpret_cast<const Pair*>(w));
  }
  static inline __attribute__((always_inline)) Weights spread(Word x) { return PairVec{} + x; }
  static inline __attribute__((always_inline)) Sum add(Sum sum, Weights w, Weights x) { return dot_pairs(sum, w, x); }
};

#if defined(__x86_64__)
typedef std::int16_t ShortVec __attribute__((vector_size(FASTVOC_WIDTH * sizeof(std::int32_t))));

// The products of every two neighbours, added.
inline __attribute__((always_inline)) IntVec neighbour_products(ShortVec a, ShortVec b) {
#if FASTVOC_WIDTH == 4
  return (IntVec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif FASTVOC_WIDTH == 8
  return (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  return (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#endif
}
#endif

// Four bytes without a sign by four with one, summed as integers.
template <>
struct Dot<std::uint8_t> {
  using Word = Pair;
  using Weights = PairVec;
  using Sum = IntVec;

  static inline __attribute__((always_inline)) Weights load_weights(const std::int8_t* w) {
    return load_pairs(reinterpret_cast<const Pair*>(w));
  }

  static inline __attribute__((always_inline)) Weights spread(Word x) { return PairVec{} + x; }
  static inline __attribute__((always_inline)) Sum add(Sum sum, Weights w, Weights x) {
#ifdef FASTVOC_BF16
    return (Sum)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif defined(__x86_64__)
    sum += neighbour_products((ShortVec)w << 8 >> 8, (ShortVec)(x & 0x00ff00ff));
    return sum + neighbour_products((ShortVec)w >> 8, (ShortVec)(x >> 8 & 0x00ff00ff));
#else
    const IntVec words = (IntVec)w;
    sum += (words << 24 >> 24) * (IntVec)(x & 0xff);
    sum += (words << 16 >> 24) * (IntVec)(x >> 8 & 0xff);
    sum += (words << 8 >> 24) * (IntVec)(x >> 16 & 0xff);
    return sum + (words >> 24) * (IntVec)(x >> 24);
#endif
  }
};

typedef std::uint8_t ByteVec __attribute__((vector_size(FASTVOC_WIDTH)));

// What an activation makes, in the type in which it is multiplied: to_elements(v, act, Element{}).
inline __attribute__((always_inline)) Vec to_elements(Vec v, const Act&, float) { return v; }
inline __attribute__((always_inline)) HalfVec to_elements(Vec v, const Act&, Bf16) { return to_halves(v); }
inline __attribute__((always_inline)) ByteVec to_elements(Vec v, const Act& act, std::uint8_t) {
  const Vec scaled = v * act.steps, low = broadcast(-act.zero), high = low + 255.0f;
  const Vec bounded = lesser(greater(scaled, low), high);
  const IntVec whole = (IntVec)with_whole(bounded) - (0x4b400000 - static_cast<std::int32_t>(act.zero));
  return __builtin_convertvector(whole, ByteVec);
}

// Writes it.
template <class Element>
inline __attribute__((always_inline)) void put(Element* y, Vec v, const Act& act) {
  const auto elements = to_elements(v, act, Element{});
  std::memcpy(y, &elements, sizeof elements);
}

// What padding with zeros holds.
template <class Element>
Element zero_of(const Act& act) {
  if constexpr (std::is_same_v<Element, std::uint8_t>) return static_cast<std::uint8_t>(act.zero);
  return Element{};
}

}  // namespace fastvoc::FASTVOC_ISA
