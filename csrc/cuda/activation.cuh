// Activations of one number, as fastvoc/ops/activation.py defines them.
#pragma once

#include "cuda/platform.cuh"

namespace fastvoc::cuda {

enum class ActKind : int { kLeaky = 0, kTanh = 1, kElu = 2, kGelu = 3, kSnake = 4 };  // of fastvoc/runtime/packing.py

// `alpha` and `inverse` hold one float for each channel, where the kind is a snake.
struct Act {
  ActKind kind;
  float slope;
  const float* alpha;
  const float* inverse;
};

__host__ __device__ inline Act identity() { return {ActKind::kLeaky, 1.0f, nullptr, nullptr}; }

// sin(x)^2, good to 3e-7: x less the nearest multiple of pi in three parts, then a polynomial in its square. Beyond 1e5 the
// phase is lost, as it is in x itself; the result stays within 0..1.
__device__ inline float sin_squared(float x) {
  const float n = rintf(x * 0.318309886f);
  float r = fmaf(n, -3.140625f, x);
  r = fmaf(n, -9.67502593994140625e-4f, r);
  r = fmaf(n, -1.509957990978376e-7f, r);
  const float square = r * r, q = square > 2.4674011f ? 2.4674011f : square;
  float p = fmaf(-3.620745474e-6f, q, 1.392924169e-4f);
  p = fmaf(p, q, -3.172300057e-3f);
  p = fmaf(p, q, 4.444313422e-2f);
  p = fmaf(p, q, -3.333330750e-1f);
  return fmaf(q * q, p, q);
}

// The activation of a kind that is known at compile time.
template <ActKind kind>
__device__ inline float activate_as(const Act& act, float v, int channel) {
  if constexpr (kind == ActKind::kTanh) return tanhf(v);
  if constexpr (kind == ActKind::kElu) return v > 0.0f ? v : expm1f(v);
  if constexpr (kind == ActKind::kGelu) return 0.5f * v * erfcf(-0.70710678f * v);
  if constexpr (kind == ActKind::kSnake) return fmaf(sin_squared(act.alpha[channel] * v), act.inverse[channel], v);
  return v > 0.0f ? v : act.slope * v;
}

template <ActKind kind>
struct Kind {
  static constexpr ActKind value = kind;
};

// f(Kind<kind>{}), so that a loop need not ask again and again.
template <class F>
__device__ inline auto with_kind(ActKind kind, const F& f) {
  switch (kind) {
    case ActKind::kTanh:
      return f(Kind<ActKind::kTanh>{});
    case ActKind::kElu:
      return f(Kind<ActKind::kElu>{});
    case ActKind::kGelu:
      return f(Kind<ActKind::kGelu>{});
    case ActKind::kSnake:
      return f(Kind<ActKind::kSnake>{});
    case ActKind::kLeaky:
      break;
  }
  return f(Kind<ActKind::kLeaky>{});
}

__device__ inline float activate(const Act& act, float v, int channel) {
  return with_kind(act.kind, [&](auto kind) { return activate_as<decltype(kind)::value>(act, v, channel); });
}

}  // namespace fastvoc::cuda
