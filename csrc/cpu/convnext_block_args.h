// What the glue hands to convnext_block.
#pragma once

#include "layer_norm_args.h"

namespace fastvoc {

// The hidden channels are computed `chunk` at a time; their shares of the result are added up in this order. `weight` holds,
// for each chunk, pairs of panels [chunk / 32][channels][2][16] of the expanding layer, then [channels / 32][chunk][2][16] of the
// projecting one, a last panel without a neighbour as [...][16], the last chunk as short as it is. Of bfloat16 elements the inputs lie in pairs, as in args.h, Filter; the convolution, the
// norm and the residual are float32 always.
template <class Element>
struct ConvNextBlockArgs {
  const float* depthwise;  // kernel rows of padded width, then the bias
  LayerNormArgs norm;
  const Element* weight;
  const float* expand_bias;
  const float* project_bias;
  int channels;
  int hidden;
  int kernel;
  int chunk;
  const Team* team = nullptr;

  // Elements of `weight`.
  std::int64_t weights() const {
    return std::int64_t{padded(hidden)} * grouped<Element>(channels) + std::int64_t{padded(channels)} * grouped<Element>(hidden);
  }
};

// Bytes of activations that should stay in a 1 MB L2 beside the panels of weights in use.
constexpr std::int64_t kBlockBytes = 768 * 1024;

// Steps of a strip. The weights pass through the caches once per strip, so strips are few and of about equal size.
template <class Element>
std::int64_t convnext_strip(const ConvNextBlockArgs<Element>& args, std::int64_t steps) {
  const std::int64_t wide = sizeof(float), size = sizeof(Element);
  const std::int64_t row = padded(args.channels) * (2 * wide + size) + args.chunk * size;
  const std::int64_t most = std::max<std::int64_t>(kBlockBytes / row / 12 * 12, 12);
  return ceil_div(ceil_div(steps, ceil_div(steps, most)), 12) * 12;
}

// Floats of scratch memory that a task of up to `steps` output steps needs. A team computes all hidden channels of its few
// steps before it projects them.
template <class Element>
std::int64_t workspace_floats(const ConvNextBlockArgs<Element>& args, std::int64_t steps) {
  const std::int64_t strip = convnext_strip(args, steps), hidden = args.team ? padded(args.hidden) : args.chunk;
  return (3 * strip + args.kernel + 1) * padded(args.channels) + strip * hidden;
}

}  // namespace fastvoc
