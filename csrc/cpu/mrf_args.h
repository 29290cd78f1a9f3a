// What the glue hands to mrf.
#pragma once

#include "args.h"

namespace fastvoc {

constexpr int kMaxBlocks = 16;
constexpr int kMaxConvs = 32;  // of one block

// One convolution of a residual block; `reach` is the sum of the paddings of the convolutions after it in its block.
struct MrfConv {
  const float* weight;
  const float* bias;
  int kernel;
  int dilation;
  int pad;
  int reach;
  Act act;  // before it
};

struct MrfArgs {
  const MrfConv* convs;
  const int* block_begin;  // index of each block's first convolution, and the total at the end
  int blocks;
  int depth;
  int channels;
  bool reflect;

  // Steps that a block sees to either side of an output step.
  int halo(int block) const {
    const MrfConv& first = convs[block_begin[block]];
    return first.pad + first.reach;
  }

  // The same for the widest block.
  int halo() const {
    int widest = 0;
    for (int b = 0; b < blocks; ++b) widest = std::max(widest, halo(b));
    return widest;
  }
};

// Steps that the strips of a residual block hold: what is kept, what is new, and the padding at the end.
inline std::int64_t mrf_input_steps(const MrfConv& conv, std::int64_t strip) { return strip + 3 * conv.pad; }
inline std::int64_t mrf_residual_steps(const MrfConv* layer, int depth, std::int64_t strip) {
  std::int64_t steps = strip;
  for (int i = 0; i < depth; ++i) steps += 2 * layer[i].pad;
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
