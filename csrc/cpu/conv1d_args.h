// What the glue hands to conv1d.
#pragma once

#include "args.h"

namespace fastvoc {

struct Conv1dArgs {
  const float* weight;
  const float* bias;
  int cout;
  int cin;
  int kernel;
  int stride;
  int dilation;
  int left;
  int right;
  Pad pad;
  Act pre;
  Act post;
};

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const Conv1dArgs& args, std::int64_t steps) {
  const int cin = padded(args.cin), cout = padded(args.cout);
  const std::int64_t strip = strip_steps(std::max(cin, cout), steps);
  const std::int64_t span = static_cast<std::int64_t>(args.dilation) * (args.kernel - 1) + 1;
  return strip * cout + (strip * args.stride + span) * cin;
}

}  // namespace fastvoc
