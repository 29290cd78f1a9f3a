// What the glue hands to seanet_block.
#pragma once

#include "conv1d_args.h"

namespace fastvoc {

// `conv1` with the activation before it (`pre`) and the one after it (`post`). The second convolution and the shortcut are
// one product: `weight` is [panel][hidden rounded up + channels][16], without the channels where `identity` adds the input
// itself. Output step t belongs to input step t + `shift`.
struct SeanetBlockArgs {
  Conv1dArgs conv1;
  const float* weight;
  const float* bias;
  int cout;
  bool identity;
  int shift;

  int span() const { return conv1.dilation * (conv1.kernel - 1) + 1; }
  int joint() const { return padded(conv1.cout) + padded(conv1.cin); }
};

inline std::int64_t seanet_strip(const SeanetBlockArgs& args, std::int64_t steps) {
  return strip_steps(std::max(padded(args.conv1.cin), padded(args.cout)), steps);
}

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const SeanetBlockArgs& args, std::int64_t steps) {
  const std::int64_t strip = seanet_strip(args, steps);
  return (strip + args.span()) * padded(args.conv1.cin) + strip * (args.joint() + padded(args.cout));
}

}  // namespace fastvoc
