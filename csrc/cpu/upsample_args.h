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
  const Team* team = nullptr;

  int taps(int phase) const { return phase < kernel ? (kernel - phase - 1) / stride + 1 : 0; }
  int reach() const { return taps(0); }

  // Whether the phases, as long as one another, are one convolution to so many whole panels of channels, unless it is one of
  // whole numbers: fastvoc/ops/upsample.py packs the weights alike.
  bool merged() const { return kernel % stride == 0 && stride * cout % kPanelWidth == 0; }
};

// Input steps per strip of an upsampling: its results are `stride` rows for each.
inline std::int64_t upsample_strip(const UpsampleArgs& args, std::int64_t longest) {
  const std::int64_t fit = 4 * kStripBytes / (static_cast<std::int64_t>(args.stride) * padded(args.cout) * 4);
  return std::min(std::max<std::int64_t>(fit / 12 * 12, 12), std::max<std::int64_t>(longest, 1));
}

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const UpsampleArgs& args, std::int64_t steps) {
  const std::int64_t strip = upsample_strip(args, steps / args.stride + 2);
  return strip * args.stride * padded(args.cout) + (strip + args.reach()) * padded(args.cin);
}

}  // namespace fastvoc
