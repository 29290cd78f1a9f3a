// What the glue hands to the kernels: raw pointers, strides and shapes, independent of the instruction set.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "threads.h"

namespace fastvoc {

constexpr int kPanelWidth = 16;

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Channels rounded up to whole panels: the width of every row inside the engine.
inline int padded(int channels) { return static_cast<int>(ceil_div(channels, kPanelWidth)) * kPanelWidth; }

// The same where a row may be half a panel wide (tile_narrow.h).
inline int narrow_width(int channels) { return channels <= kPanelWidth / 2 ? kPanelWidth / 2 : padded(channels); }

// One item's input: element (time t, channel c) is data[t * step + c * channel], valid for t in [0, steps).
template <class Element>
struct SourceOf {
  const Element* data;
  std::ptrdiff_t step;
  std::ptrdiff_t channel;
  std::int64_t steps;
  int channels;
};

using Source = SourceOf<float>;

// A bfloat16 number: the upper half of a float.
struct Bf16 {
  std::uint16_t bits;
};

// One item's input of either type, as SourceOf.
struct AnySource {
  const void* data;
  std::ptrdiff_t step;
  std::ptrdiff_t channel;
  std::int64_t steps;
  int channels;
  bool half;

  AnySource(const SourceOf<float>& s) : AnySource(s, false) {}
  AnySource(const SourceOf<Bf16>& s) : AnySource(s, true) {}

  // use(source) with the typed source.
  template <class Use>
  void visit(const Use& use) const {
    half ? use(typed<Bf16>()) : use(typed<float>());
  }

 private:
  template <class Element>
  AnySource(const SourceOf<Element>& s, bool is_half)
      : data(s.data), step(s.step), channel(s.channel), steps(s.steps), channels(s.channels), half(is_half) {}

  template <class Element>
  SourceOf<Element> typed() const {
    return {static_cast<const Element*>(data), step, channel, steps, channels};
  }
};

// What a convolution multiplies, by the type of its activations inside: float, Bf16, or bytes, whose weights are signed
// bytes. `Outer` is the type of the op's inputs and outputs, `kGroup` the channels that one multiplication takes.
template <class Element>
struct Numbers {
  using Outer = float;
  using Weight = float;
  static constexpr int kGroup = 1;
};
template <>
struct Numbers<Bf16> {
  using Outer = Bf16;
  using Weight = Bf16;
  static constexpr int kGroup = 2;
};
template <>
struct Numbers<std::uint8_t> {
  using Outer = float;
  using Weight = std::int8_t;
  static constexpr int kGroup = 4;
};

template <class Element>
using Outer = typename Numbers<Element>::Outer;

// Channels in whole groups.
template <class Element>
int grouped(int channels) {
  return static_cast<int>(ceil_div(channels, Numbers<Element>::kGroup)) * Numbers<Element>::kGroup;
}

// Weights of the panels of 16 outputs, [panel][tap][group of channels][16][group], and the bias. Of bytes the sums start at
// `start`, which takes the zero point out of them, and `scale` makes floats of them.
template <class Element>
struct Filter {
  const typename Numbers<Element>::Weight* weight;
  const float* bias;
  const float* scale = nullptr;
  const std::int32_t* start = nullptr;
};

// One item's output, time-major: element (t, c) is data[t * channels + c].
template <class Element>
struct SinkOf {
  Element* data;
  int channels;
};

using Sink = SinkOf<float>;

// An elementwise activation; `alpha` and `inverse` are a snake's values per channel, padded to whole panels. Where bytes are
// made of its results, x becomes round(x * steps) + zero.
enum class ActKind : int { kLeaky = 0, kTanh = 1, kElu = 2, kGelu = 3, kSnake = 4 };  // the numbers of fastvoc/runtime/packing.py

struct Act {
  ActKind kind = ActKind::kLeaky;
  float slope = 1.0f;
  const float* alpha = nullptr;
  const float* inverse = nullptr;
  float steps = 1.0f;
  float zero = 0.0f;

  // What a leaky ReLU does of it: all, or nothing where another function follows.
  float leak() const { return kind == ActKind::kLeaky ? slope : 1.0f; }
};

// How a convolution pads.
enum class Pad : int { kZeros = 0, kReflect = 1, kReplicate = 2 };

// Output steps per strip: what one layer touches should stay in a 1 MB L2 beside a panel of weights.
constexpr std::int64_t kStripBytes = 96 * 1024;

inline std::int64_t strip_steps(std::int64_t row_floats, std::int64_t longest) {
  const std::int64_t fit = kStripBytes / (row_floats * static_cast<std::int64_t>(sizeof(float)));
  const std::int64_t steps = std::max<std::int64_t>(fit / 24 * 24, 24);
  return std::min(steps, std::max<std::int64_t>(longest, 1));
}

}  // namespace fastvoc
