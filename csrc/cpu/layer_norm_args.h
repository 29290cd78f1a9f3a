// What the glue hands to layer_norm.
#pragma once

#include "args.h"

namespace fastvoc {

// weight and bias: one row of padded width, zeros beyond the channels.
struct LayerNormArgs {
  const float* weight;
  const float* bias;
  int channels;
  float eps;
};

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const LayerNormArgs& args, std::int64_t steps) {
  return strip_steps(padded(args.channels), steps) * padded(args.channels);
}

}  // namespace fastvoc
