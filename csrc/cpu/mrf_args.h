// What the glue hands to mrf.
#pragma once

#include "args.h"

namespace fastvoc {

constexpr int kMaxBlocks = 16;
constexpr int kMaxConvs = 32;  // of one block

// How the convolutions pad: half on either side, or zeros before the first step only.
enum class MrfPad : int { kZeros = 0, kReflect = 1, kCausal = 2 };  // the numbers of fastvoc/ops/mrf.py

// One convolution of a residual block; `back` and `ahead` are the sums of the paddings on the left and on the right of the
// convolutions after it in its block.
struct MrfConv {
  const float* weight;
  const float* bias;
  int kernel;
  int dilation;
  int left;
  int right;
  int back;
  int ahead;
  Act act;  // before it
};

struct MrfArgs {
  const MrfConv* convs;
  const int* block_begin;  // index of each block's first convolution, and the total at the end
  int blocks;
  int depth;
  int channels;
  bool reflect;

  // Steps that a block sees after an output step.
  int ahead(int block) const {
    const MrfConv& first = convs[block_begin[block]];
    return first.right + first.ahead;
  }

  // The same for the block that sees farthest.
  int ahead() const {
    int farthest = 0;
    for (int b = 0; b < blocks; ++b) farthest = std::max(farthest, ahead(b));
    return farthest;
  }

  // Steps that a block sees beside an output step, on both sides together.
  int around(int block) const {
    const MrfConv& first = convs[block_begin[block]];
    return first.left + first.back + ahead(block);
  }

  // The same for the block that sees most.
  int around() const {
    int most = 0;
    for (int b = 0; b < blocks; ++b) most = std::max(most, around(b));
    return most;
  }
};

// Steps that the strips of a residual block hold: what is kept, what is new, and the padding at the end.
inline std::int64_t mrf_input_steps(const MrfConv& conv, std::int64_t strip) {
  return strip + conv.left + 2 * conv.right;
}
inline std::int64_t mrf_residual_steps(const MrfConv* layer, int depth, std::int64_t strip) {
  std::int64_t steps = strip;
  for (int i = 0; i < depth; ++i) steps += layer[i].left + layer[i].right;
  return steps;
}

inline std::int64_t block_floats(const MrfArgs& args, int block, std::int64_t strip) {
  std::int64_t steps = 0;
  for (int l = args.block_begin[block]; l < args.block_begin[block + 1]; ++l) {
    steps += mrf_input_steps(args.convs[l], strip);
    if ((l - args.block_begin[block]) % args.depth == 0) steps += mrf_residual_steps(args.convs + l, args.depth, strip);
  }
  return steps * padded(args.channels);
}

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const MrfArgs& args, std::int64_t steps) {
  const std::int64_t strip = strip_steps(padded(args.channels), steps);
  std::int64_t floats = strip * padded(args.channels);
  for (int b = 0; b < args.blocks; ++b) floats += block_floats(args, b, strip);
  return floats;
}

}  // namespace fastvoc
