// What the glue hands to conv2d.
#pragma once

#include "args.h"

namespace fastvoc {

struct Conv2dArgs {
  const float* weight;  // one convolution over frequency per time tap, each packed like that of conv1d
  const float* bias;
  int cout;
  int cin;
  int time;  // taps
  int taps;  // over frequency
  int bands;
  int pool;
  float slope;

  int half() const { return taps / 2; }
  // Frequencies of a row with the zeros after them, which are those before the next row, too.
  int columns() const { return bands + half(); }
  std::int64_t panel_floats() const { return std::int64_t{1} * taps * cin * kPanelWidth; }
};

// Rows per strip: what they hold, and what becomes of them, should stay in the L2.
inline std::int64_t conv2d_strip(const Conv2dArgs& args, std::int64_t longest) {
  const std::int64_t row = std::int64_t{1} * args.columns() * (args.cin + padded(args.cout)) * 4;
  return std::clamp<std::int64_t>(4 * kStripBytes / row, 1, std::max<std::int64_t>(longest, 1));
}

// Floats of scratch memory that a task of up to `steps` output rows needs.
inline std::int64_t workspace_floats(const Conv2dArgs& args, std::int64_t steps) {
  const std::int64_t strip = conv2d_strip(args, steps), width = padded(args.cout);
  const std::int64_t held = ((strip + args.time - 1) * args.columns() + 2 * args.half()) * args.cin;
  return width + strip * args.columns() * width + held;
}

}  // namespace fastvoc
