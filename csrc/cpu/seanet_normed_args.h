// What the glue hands to seanet_block where group norms follow its convolutions.
#pragma once

#include "group_norm_act_args.h"
#include "seanet_block_args.h"

namespace fastvoc {

// `block` without its last product: that one consists of `weight2` [panel][hidden rounded up][16] and `shortcut`
// [panel][channels][16], of bfloat16 in pairs, null where the input itself is added. norm1 [hidden] follows the first convolution.
template <class Element>
struct SeanetNormedArgs {
  SeanetBlockArgs<Element> block;
  const Element* weight2;
  const float* bias2;
  const Element* shortcut;
  const float* bias_shortcut;
  GroupNormArgs norm1;
  double eps;
};

// What the convolutions of an item make, before their norms: rows of whole panels, step by step. `shortcut` may be null.
template <class Element>
struct SeanetRows {
  Element* hidden;
  Element* inner;
  Element* shortcut;
};

// The moments of one block of steps of them.
struct SeanetMoments {
  Moments hidden;
  Moments inner;
  Moments shortcut;
};

// The last two norms, padded to whole panels: y = inner * scale_inner + shortcut * scale_shortcut + shift.
struct SeanetNorms {
  const float* scale_inner;
  const float* scale_shortcut;
  const float* shift;
};

// Steps of a block: they depend on the channels alone, so that the sums run in one order always.
template <class Element>
std::int64_t seanet_steps(const SeanetNormedArgs<Element>& args) { return seanet_strip(args.block, kStripBytes); }

// Floats of scratch memory that a task needs.
template <class Element>
std::int64_t workspace_floats(const SeanetNormedArgs<Element>& args) {
  return workspace_floats(args.block, seanet_steps(args)) + padded(args.block.conv1.cout);
}

}  // namespace fastvoc
