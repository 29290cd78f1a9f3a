// What the two forms of seanet_block share on torch's side.
#pragma once

#include "glue.h"

namespace fastvoc {

// Steps that reflection needs.
inline int64_t reflected_steps(const Conv1dArgs& conv) {
  return conv.pad == Pad::kReflect ? std::max(conv.left, conv.right) + 1 : 1;
}

// The item with zeros appended up to `steps` steps, in `memory`; itself when it has as many.
template <class Element>
SourceOf<Element> lengthened(const SourceOf<Element>& source, int64_t steps, std::vector<Element>& memory) {
  if (source.steps >= steps) return source;
  memory.assign(static_cast<std::size_t>(steps * source.channels), Element{});
  for (int64_t t = 0; t < source.steps; ++t) {
    for (int c = 0; c < source.channels; ++c) {
      memory[static_cast<std::size_t>(t * source.channels + c)] = source.data[t * source.step + c * source.channel];
    }
  }
  return {memory.data(), source.channels, 1, steps, source.channels};
}

// The block with the norms of the call, of either type.
Tensor seanet_block_normed(const SeanetBlockArgs<float>& block, const SeanetBlockCall& call);
Tensor seanet_block_normed(const SeanetBlockArgs<Bf16>& block, const SeanetBlockCall& call);

}  // namespace fastvoc
