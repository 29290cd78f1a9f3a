// What the glue hands to upsample.
#pragma once

#include "args.h"

namespace fastvoc {

struct UpsampleArgs {
  int cout;
  int cin;
  int kernel;
  int stride;
  int left;
  int right;
  Act pre;
  bool paired = false;  // whether the weights have the sums of their two taps behind them
  const Team* team = nullptr;

  int taps(int phase) const { return phase < kernel ? (kernel - phase - 1) / stride + 1 : 0; }
  int reach() const { return taps(0); }

  // Whether the phases, as long as one another, are one convolution to so many whole panels of channels, unless it is one of
  // whole numbers: fastvoc/ops/upsample.py packs the weights alike.
  bool merged() const { return kernel % stride == 0 && stride * cout % kPanelWidth == 0; }
};

// The input steps whose products make the output steps [begin, end), in whole pairs from the first on.
struct UpsampleRange {
  std::int64_t begin;
  std::int64_t end;

  UpsampleRange(const UpsampleArgs& args, std::int64_t first, std::int64_t last)
      : begin((first + args.left) / args.stride), end((last - 1 + args.left) / args.stride + 1) {
    if (args.paired) begin -= begin % 2;
  }
  std::int64_t steps() const { return end - begin; }
};

// Input steps per strip of an upsampling: its results are `stride` rows for each. Weights that no L2 holds pass through the caches
// once per strip, so the strips of such a layer are longer, few and of about equal size.
inline std::int64_t upsample_strip(const UpsampleArgs& args, std::int64_t longest) {
  constexpr std::int64_t wide = 512 * 1024, activations = 4 * 1024 * 1024, size = sizeof(float);
  const std::int64_t cin = padded(args.cin), made = static_cast<std::int64_t>(args.stride) * padded(args.cout);
  const std::int64_t steps = std::max<std::int64_t>(longest, 1);
  if (padded(args.cout) * cin * args.kernel * size <= wide) {
    return std::min(std::max<std::int64_t>(4 * kStripBytes / (made * size) / 12 * 12, 12), steps);
  }
  const std::int64_t most = std::max<std::int64_t>(activations / ((cin + made) * size) / 12 * 12, 12);
  return std::min(ceil_div(ceil_div(steps, ceil_div(steps, most)), 12) * 12, steps);
}

// Floats of scratch memory that a task of the output steps [begin, end) needs.
inline std::int64_t workspace_floats(const UpsampleArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t strip = upsample_strip(args, UpsampleRange(args, begin, end).steps()), cin = padded(args.cin);
  return strip * args.stride * padded(args.cout) + (strip + args.reach()) * cin + (args.paired ? strip * cin : 0);
}

}  // namespace fastvoc
