// What the glue hands to convnext_block.
#pragma once

#include "layer_norm_args.h"

namespace fastvoc {

// The hidden channels are computed `chunk` at a time; their shares of the result are added up in this order. `weight` holds,
// for each chunk, panels [chunk / 16][channels][16] of the expanding layer, then [channels / 16][chunk][16] of the projecting
// one, the last chunk as short as it is.
struct ConvNextBlockArgs {
  const float* depthwise;  // kernel rows of padded width, then the bias
  LayerNormArgs norm;
  const float* weight;
  const float* expand_bias;
  const float* project_bias;
  int channels;
  int hidden;
  int kernel;
  int chunk;
};

// Bytes of activations that should stay in a 1 MB L2 beside the panels of weights in use.
constexpr std::int64_t kBlockBytes = 768 * 1024;

// Steps of a strip. The weights pass through the caches once per strip, so strips are few and of about equal size.
inline std::int64_t convnext_strip(const ConvNextBlockArgs& args, std::int64_t steps) {
  const std::int64_t row = (3 * padded(args.channels) + args.chunk) * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t most = std::max<std::int64_t>(kBlockBytes / row / 12 * 12, 12);
  return ceil_div(ceil_div(steps, ceil_div(steps, most)), 12) * 12;
}

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const ConvNextBlockArgs& args, std::int64_t steps) {
  const std::int64_t strip = convnext_strip(args, steps);
  return (3 * strip + args.kernel) * padded(args.channels) + strip * args.chunk;
}

}  // namespace fastvoc
