// What the glue hands to the kernels: raw pointers, strides and shapes, independent of the instruction set.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace fastvoc {

constexpr int kPanelWidth = 16;

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Channels rounded up to whole panels: the width of every row inside the engine.
inline int padded(int channels) { return static_cast<int>(ceil_div(channels, kPanelWidth)) * kPanelWidth; }

// One item's input: element (time t, channel c) is data[t * step + c * channel], valid for t in [0, steps).
struct Source {
  const float* data;
  std::ptrdiff_t step;
  std::ptrdiff_t channel;
  std::int64_t steps;
  int channels;
};

// One item's output, time-major: element (t, c) is data[t * channels + c].
struct Sink {
  float* data;
  int channels;
};

// Output steps per strip: what one layer touches should stay in a 1 MB L2 beside a panel of weights.
constexpr std::int64_t kStripBytes = 96 * 1024;

inline std::int64_t strip_steps(std::int64_t row_floats, std::int64_t longest) {
  const std::int64_t fit = kStripBytes / (row_floats * static_cast<std::int64_t>(sizeof(float)));
  const std::int64_t steps = std::max<std::int64_t>(fit / 24 * 24, 24);
  return std::min(steps, std::max<std::int64_t>(longest, 1));
}

}  // namespace fastvoc
