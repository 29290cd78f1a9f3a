// What the glue hands to seanet_block.
#pragma once

#include "conv1d_args.h"

namespace fastvoc {

// `conv1` with the activation before it (`pre`) and the one after it (`post`), its weights in `weight1`. The second convolution
// and the shortcut are one product: `weight2` is [panel][hidden rounded up + channels][16], without the channels where
// `identity` adds the input itself. Of bfloat16 elements the channels lie in pairs, as in args.h, Filter. Output step t belongs
// to input step t + `shift`.
template <class Element>
struct SeanetBlockArgs {
  Conv1dArgs conv1;
  const Element* weight1;
  const Element* weight2;
  const float* bias;
  int cout;
  bool identity;
  int shift;
  const float* bias1;

  int span() const { return conv1.dilation * (conv1.kernel - 1) + 1; }
  int hidden() const { return padded(conv1.cout); }
  // Channels rounded up to what one multiplication takes.
  int channels() const { return conv1.cin + (sizeof(Element) == sizeof(Bf16) ? conv1.cin % 2 : 0); }
  int inputs() const { return hidden() + (identity ? 0 : channels()); }
  int joint() const { return hidden() + padded(conv1.cin); }
};

template <class Element>
std::int64_t seanet_strip(const SeanetBlockArgs<Element>& args, std::int64_t steps) {
  return strip_steps(std::max(padded(args.conv1.cin), padded(args.cout)), steps);
}

// Floats of scratch memory that a task of up to `steps` output steps needs.
template <class Element>
std::int64_t workspace_floats(const SeanetBlockArgs<Element>& args, std::int64_t steps) {
  const std::int64_t strip = seanet_strip(args, steps);
  return (strip + args.span()) * padded(args.conv1.cin) + strip * (args.joint() + padded(args.cout));
}

}  // namespace fastvoc
