// A strip: consecutive rows of channels that slides along an item's time axis.
#pragma once

#include "dot.h"

namespace fastvoc::FASTVOC_ISA {

// Holds the steps [first, end) of a signal, rows of `width` elements. `first` may be negative: padding.
template <class Element>
struct Strip {
  Element* data;
  std::ptrdiff_t width;
  std::int64_t first;
  std::int64_t end;

  Element* at(std::int64_t t) const { return data + (t - first) * width; }

  // Keeps nothing before step t, which may lie beyond the end: then nothing at all.
  void drop_before(std::int64_t t) {
    t = std::min(t, end);
    if (t <= first) return;
    std::memmove(data, at(t), static_cast<std::size_t>((end - t) * width) * sizeof(Element));
    first = t;
  }

  // Appends padding up to `t` after the last valid step, `steps` - 1.
  void pad_right(std::int64_t t, std::int64_t steps, bool reflect, Element zero = {}) {
    for (; end < t; ++end) fill(end, 2 * (steps - 1) - end, reflect, zero);
  }

  // Fills the steps before 0.
  void pad_left(bool reflect, Element zero = {}) const {
    for (std::int64_t t = first; t < 0; ++t) fill(t, -t, reflect, zero);
  }

 private:
  void fill(std::int64_t t, std::int64_t mirrored, bool reflect, Element zero) const {
    if (reflect) {
      std::copy_n(at(mirrored), width, at(t));
    } else {
      std::fill_n(at(t), width, zero);
    }
  }
};

// What an op that computes in `Element` takes of a given input: floats rounded to its own type where that is shorter.
template <class Element, class Given>
inline __attribute__((always_inline)) Vec taken(Vec v) {
  if constexpr (std::is_same_v<Element, Bf16> && std::is_same_v<Given, float>) return rounded(v);
  return v;
}

// Copies the steps [from, to) into rows of padded width: as `As` takes them into `raw` unless null, and through a leaky ReLU
// into `act`.
template <class As, class Given, class Element>
void load_leaky(const SourceOf<Given>& source, std::int64_t from, std::int64_t to, float* raw, Element* act,
                const Act& activation) {
  const int width = padded(source.channels);
  const int whole = source.channel == 1 ? source.channels / FASTVOC_WIDTH * FASTVOC_WIDTH : 0;
  const float slope = activation.leak();
  for (std::int64_t t = from; t < to; ++t, act += width) {
    const Given* x = source.data + t * source.step;
    for (int c = 0; c < width; c += FASTVOC_WIDTH) {
      Vec v;
      if (c < whole) {
        v = load(x + c);
      } else {
        float part[FASTVOC_WIDTH] = {};
        const int present = std::min(FASTVOC_WIDTH, source.channels - c);
        for (int i = 0; i < present; ++i) part[i] = widen(x[(c + i) * source.channel]);
        v = load(part);
      }
      v = taken<As, Given>(v);
      if (raw) store(raw + c, v);
      put(act + c, leaky(v, slope), activation);
    }
    if (raw) raw += width;
  }
}

// The same through any activation.
template <class Given, class Element>
void load_rows(const SourceOf<Given>& source, std::int64_t from, std::int64_t to, float* raw, Element* act,
               const Act& activation) {
  const int width = padded(source.channels);
  if (activation.kind == ActKind::kLeaky || to <= from) {
    load_leaky<Element>(source, from, to, raw, act, activation);
  } else if constexpr (std::is_same_v<Element, float>) {
    if constexpr (std::is_same_v<Given, float>) {
      if (source.channel == 1 && width == source.channels) {
        for (std::int64_t t = from; raw && t < to; ++t, raw += width) std::copy_n(source.data + t * source.step, width, raw);
        return activate_rows(activation, source.data + from * source.step, source.step, act, width, to - from, 0, width);
      }
    }
    load_leaky<Element>(source, from, to, raw, act, activation);
    activate_rows(activation, act, width, to - from, 0, width);
  } else {
    constexpr int kFloats = 4096;
    alignas(64) float space[kFloats];
    for (int first = 0; first < width; first += kFloats) {
      const int columns = std::min(kFloats, width - first), many = kFloats / columns;
      SourceOf<Given> part = source;
      part.data += first * source.channel;
      part.channels = std::min(columns, source.channels - first);
      for (std::int64_t t = from; t < to; t += many) {
        const std::int64_t rows = std::min<std::int64_t>(many, to - t);
        load_leaky<Element>(part, t, t + rows, nullptr, space, activation);
        for (std::int64_t r = 0; raw && r < rows; ++r) {
          std::copy_n(space + r * columns, columns, raw + (t - from + r) * width + first);
        }
        activate_rows(activation, space, columns, rows, first, columns);
        for (std::int64_t r = 0; r < rows; ++r) {
          Element* y = act + (t - from + r) * width + first;
          for (int c = 0; c < columns; c += FASTVOC_WIDTH) put(y + c, load(space + r * columns + c), activation);
        }
      }
    }
  }
}

// As load_rows() into rows of half a panel, which lie side by side.
template <class Given, class Element>
void load_half_rows(const SourceOf<Given>& source, std::int64_t from, std::int64_t to, float* raw, Element* act,
                    const Act& activation) {
  constexpr int width = kPanel / 2, many = 64;
  const bool dense = source.channels == width && source.channel == 1 && source.step == width;
  const float slope = activation.leak();
  alignas(64) float space[many * width + kPanel] = {};
  for (std::int64_t t = from; t < to; t += many) {
    const std::int64_t rows = std::min<std::int64_t>(many, to - t), count = rows * width;
    const Given* x = source.data + t * source.step;
    if (dense) {
      widen_vectors(x, space, count);
    } else {
      for (std::int64_t r = 0; r < rows; ++r) {
        for (int c = 0; c < source.channels; ++c) space[r * width + c] = widen(x[r * source.step + c * source.channel]);
      }
    }
    if constexpr (std::is_same_v<Element, Bf16> && std::is_same_v<Given, float>) round_row(space, count);
    if (raw) std::copy_n(space, count, raw + (t - from) * width);
    if (activation.kind != ActKind::kLeaky) {
      activate_rows(activation, space, kPanel, ceil_div(count, kPanel), 0, kPanel);
    }
    Element* y = act + (t - from) * width;
    std::int64_t i = 0;
    for (; i + FASTVOC_WIDTH <= count; i += FASTVOC_WIDTH) put(y + i, leaky(load(space + i), slope), activation);
    if (i == count) continue;
    Element rest[FASTVOC_WIDTH];
    put(rest, leaky(load(space + i), slope), activation);
    std::copy_n(rest, count - i, y + i);
  }
}

// The same for an input of either type.
template <class Element>
void load_rows(const AnySource& source, std::int64_t from, std::int64_t to, float* raw, Element* act, const Act& activation) {
  source.visit([&](const auto& typed) { load_rows(typed, from, to, raw, act, activation); });
}

template <class Element>
void load_half_rows(const AnySource& source, std::int64_t from, std::int64_t to, float* raw, Element* act,
                    const Act& activation) {
  source.visit([&](const auto& typed) { load_half_rows(typed, from, to, raw, act, activation); });
}

// Copies rows of `width` floats to the steps from `t` on of the output.
template <class Given>
void store_rows(const SinkOf<Given>& sink, std::int64_t t, const float* rows, std::int64_t count, int width) {
  Given* y = sink.data + t * sink.channels;
  if (width == sink.channels) return narrow_row(rows, y, count * width);
  for (std::int64_t i = 0; i < count; ++i) narrow_row(rows + i * width, y + i * sink.channels, sink.channels);
}

// The same for rows of padded width.
template <class Given>
void store_rows(const SinkOf<Given>& sink, std::int64_t t, const float* rows, std::int64_t count) {
  store_rows(sink, t, rows, count, padded(sink.channels));
}

// The same for rows that are of the output's type.
template <class Given>
void copy_rows(const SinkOf<Given>& sink, std::int64_t t, const Given* rows, std::int64_t count, int width) {
  Given* y = sink.data + t * sink.channels;
  if (width == sink.channels) {
    std::copy_n(rows, count * width, y);
  } else {
    for (std::int64_t i = 0; i < count; ++i) std::copy_n(rows + i * width, sink.channels, y + i * sink.channels);
  }
}

// The same for rows of padded width.
template <class Given>
void copy_rows(const SinkOf<Given>& sink, std::int64_t t, const Given* rows, std::int64_t count) {
  copy_rows(sink, t, rows, count, padded(sink.channels));
}

}  // namespace fastvoc::FASTVOC_ISA
