// Activations on rows of channels and on flat memory.
#pragma once

#include "args.h"
#include "math.h"

namespace fastvoc::FASTVOC_ISA {

// The functions by kind: f(v, c) maps a vector of the channels from c on.
template <ActKind kind>
struct ActFunction {
  const Act& act;

  inline __attribute__((always_inline)) Vec operator()(Vec v, std::ptrdiff_t c) const {
    if constexpr (kind == ActKind::kTanh) return tanh(v);
    if constexpr (kind == ActKind::kElu) return elu(v);
    if constexpr (kind == ActKind::kGelu) return gelu(v);
    if constexpr (kind == ActKind::kSnake) return v + sin_squared(load(act.alpha + c) * v) * load(act.inverse + c);
    return leaky(v, act.slope);
  }
};

// use(f) with the function of an activation.
template <class Use>
inline __attribute__((always_inline)) void with_function(const Act& act, const Use& use) {
  switch (act.kind) {
    case ActKind::kLeaky:
      return use(ActFunction<ActKind::kLeaky>{act});
    case ActKind::kTanh:
      return use(ActFunction<ActKind::kTanh>{act});
    case ActKind::kElu:
      return use(ActFunction<ActKind::kElu>{act});
    case ActKind::kGelu:
      return use(ActFunction<ActKind::kGelu>{act});
    case ActKind::kSnake:
      return use(ActFunction<ActKind::kSnake>{act});
  }
}

// Activates `columns` channels, whole vectors from channel `first` on, of `rows` rows of x, to those of y, which may be the same.
// Never inlined: every instance of a function might contract its products differently.
__attribute__((noinline)) inline void activate_rows(const Act& act, const float* x, std::ptrdiff_t x_row, float* y,
                                                    std::ptrdiff_t y_row, std::int64_t rows, std::ptrdiff_t first,
                                                    int columns) {
  with_function(act, [&](auto f) {
    const float* from = x;
    float* at = y;
    for (std::int64_t t = 0; t < rows; ++t, from += x_row, at += y_row) {
      for (int c = 0; c < columns; c += FASTVOC_WIDTH) store(at + c, f(load(from + c), first + c));
    }
  });
}

// The same in place.
inline void activate_rows(const Act& act, float* y, std::ptrdiff_t row, std::int64_t rows, std::ptrdiff_t first, int columns) {
  activate_rows(act, y, row, y, row, rows, first, columns);
}

// Activates `count` floats in place; not for a snake, which needs to know the channel.
inline void activate_flat(const Act& act, float* y, std::int64_t count) {
  if (act.kind == ActKind::kLeaky && act.slope == 1.0f) return;
  const std::int64_t whole = count / FASTVOC_WIDTH * FASTVOC_WIDTH;
  activate_rows(act, y, FASTVOC_WIDTH, whole / FASTVOC_WIDTH, 0, FASTVOC_WIDTH);
  if (whole == count) return;
  float rest[FASTVOC_WIDTH] = {};
  const std::size_t bytes = static_cast<std::size_t>(count - whole) * sizeof(float);
  std::memcpy(rest, y + whole, bytes);
  activate_rows(act, rest, FASTVOC_WIDTH, 1, 0, FASTVOC_WIDTH);
  std::memcpy(y + whole, rest, bytes);
}

}  // namespace fastvoc::FASTVOC_ISA
