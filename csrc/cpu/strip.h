// A strip: consecutive rows of channels that slides along an item's time axis.
#pragma once

#include "activation.h"

namespace fastvoc::FASTVOC_ISA {

// Holds the steps [first, end) of a signal, rows of `width` floats. `first` may be negative: padding.
struct Strip {
  float* data;
  std::ptrdiff_t width;
  std::int64_t first;
  std::int64_t end;

  float* at(std::int64_t t) const { return data + (t - first) * width; }

  void drop_before(std::int64_t t) {
    if (t <= first) return;
    std::memmove(data, at(t), static_cast<std::size_t>((end - t) * width) * sizeof(float));
    first = t;
  }

  // Appends padding up to `t` after the last valid step, `steps` - 1.
  void pad_right(std::int64_t t, std::int64_t steps, bool reflect) {
    for (; end < t; ++end) {
      if (reflect) {
        std::memcpy(at(end), at(2 * (steps - 1) - end), static_cast<std::size_t>(width) * sizeof(float));
      } else {
        std::memset(at(end), 0, static_cast<std::size_t>(width) * sizeof(float));
      }
    }
  }

  // Fills the steps before 0.
  void pad_left(bool reflect) const {
    for (std::int64_t t = first; t < 0; ++t) {
      if (reflect) {
        std::memcpy(at(t), at(-t), static_cast<std::size_t>(width) * sizeof(float));
      } else {
        std::memset(at(t), 0, static_cast<std::size_t>(width) * sizeof(float));
      }
    }
  }
};

// Copies the steps [from, to) into rows of padded width: as they are into `raw` unless null, and activated into `act`.
inline void load_rows(const Source& source, std::int64_t from, std::int64_t to, float* raw, float* act,
                      const Act& activation) {
  const int width = padded(source.channels);
  const float slope = activation.leak();
  float* const rows = act;
  const int whole = source.channel == 1 ? source.channels / FASTVOC_WIDTH * FASTVOC_WIDTH : 0;
  for (std::int64_t t = from; t < to; ++t, act += width) {
    const float* x = source.data + t * source.step;
    for (int c = 0; c < whole; c += FASTVOC_WIDTH) {
      const Vec v = load(x + c);
      if (raw) store(raw + c, v);
      store(act + c, leaky(v, slope));
    }
    for (int c = whole; c < width; ++c) {
      const float v = c < source.channels ? x[c * source.channel] : 0.0f;
      if (raw) raw[c] = v;
      act[c] = v > 0.0f ? v : v * slope;
    }
    if (raw) raw += width;
  }
  if (activation.kind != ActKind::kLeaky && to > from) activate_rows(activation, rows, width, to - from, 0, width);
}

// Copies rows of padded width to the steps from `t` on of the output.
inline void store_rows(const Sink& sink, std::int64_t t, const float* rows, std::int64_t count) {
  const int width = padded(sink.channels);
  const std::size_t bytes = static_cast<std::size_t>(sink.channels) * sizeof(float);
  float* y = sink.data + t * sink.channels;
  if (width == sink.channels) {
    std::memcpy(y, rows, static_cast<std::size_t>(count) * bytes);
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) std::memcpy(y + i * sink.channels, rows + i * width, bytes);
}

}  // namespace fastvoc::FASTVOC_ISA
