// What the glue hands to depthwise.
#pragma once

#include "args.h"

namespace fastvoc {

struct DepthwiseArgs {
  const float* weight;  // [kernel][padded channels]
  const float* bias;    // [padded channels]
  int channels;
  int kernel;
  int dilation;
  int left;
  int right;
  Act pre;

  int reach() const { return (kernel - 1) * dilation; }
  std::int64_t made(std::int64_t steps) const { return steps + left + right - reach(); }
};

// Output steps per strip: at least as many as are held over from the strip before.
inline std::int64_t depthwise_strip(const DepthwiseArgs& args, std::int64_t longest) {
  const std::int64_t steps = std::max<std::int64_t>(strip_steps(padded(args.channels), longest), args.reach());
  return std::min(std::max<std::int64_t>(steps, 16), longest);
}

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const DepthwiseArgs& args, std::int64_t steps) {
  return (2 * depthwise_strip(args, steps) + args.reach()) * padded(args.channels);
}

}  // namespace fastvoc
