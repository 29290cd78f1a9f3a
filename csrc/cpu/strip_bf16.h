// Rows of float32 from a signal in bfloat16, and back: for kernels that compute in float32 what lies in bfloat16.
#pragma once

#include "bf16.h"
#include "strip.h"

namespace fastvoc::FASTVOC_ISA {

// As load_rows of strip.h.
inline void load_rows(const SourceOf<Bf16>& source, std::int64_t from, std::int64_t to, float* raw, float* act,
                      const Act& activation) {
  const std::ptrdiff_t width = padded(source.channels);
  for (std::int64_t t = from; t < to; ++t) {
    const Bf16* x = source.data + t * source.step;
    float* row = act + (t - from) * width;
    if (source.channel == 1) {
      std::transform(x, x + source.channels, row, [](Bf16 v) { return widen(v); });
    } else {
      for (int c = 0; c < source.channels; ++c) row[c] = widen(x[c * source.channel]);
    }
    std::fill(row + source.channels, row + width, 0.0f);
  }
  if (raw) std::copy_n(act, (to - from) * width, raw);
  if (activation.kind == ActKind::kLeaky && activation.slope == 1.0f) return;
  if (to > from) activate_rows(activation, act, width, to - from, 0, static_cast<int>(width));
}

inline void store_rows(const SinkOf<Bf16>& sink, std::int64_t t, const float* rows, std::int64_t count) {
  const std::ptrdiff_t width = padded(sink.channels);
  for (std::int64_t i = 0; i < count; ++i) {
    narrow_row(rows + i * width, sink.data + (t + i) * sink.channels, sink.channels);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
