// What the glue hands to adain.
#pragma once

#include "args.h"

namespace fastvoc {

struct AdaInArgs {
  int channels;
  Act act;
};

// Of each channel over some of an item's steps: the mean, what the true mean is more, and the sum of squared distances
// from that.
struct AdaInMoments {
  float* mean;
  float* off;
  float* squares;
};

// What is done to each channel of an item, padded to whole panels: y = ((x - high) - low) * scale + shift. The mean comes in
// two parts: one float of it would be too coarse beside a small deviation.
struct AdaInItem {
  const float* high;
  const float* low;
  const float* scale;
  const float* shift;
};

// Steps whose moments are taken at once: they depend on the channels alone, so that the sums run in one order always.
inline std::int64_t moment_steps(const AdaInArgs& args) { return strip_steps(padded(args.channels), kStripBytes); }

// Floats of scratch memory that a task needs.
inline std::int64_t workspace_floats(const AdaInArgs& args) { return 2 * moment_steps(args) * padded(args.channels); }

}  // namespace fastvoc
