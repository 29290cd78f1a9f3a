// The memory of mrf: what its strips hold, and what a range needs of them.
#pragma once

#include "mrf_tuning.h"

namespace fastvoc {

// Steps that the strips of a residual block hold: what is kept, what is new, what was made early because blocks are whole,
// and the padding at the end.
inline std::int64_t mrf_input_steps(const MrfConv& conv, std::int64_t strip, int slack) {
  return strip + conv.left + 2 * (conv.beyond() + slack);
}
inline std::int64_t mrf_residual_steps(const MrfConv* layer, int depth, std::int64_t strip, int slack) {
  std::int64_t steps = strip + 3 * slack;
  for (int i = 0; i < depth; ++i) steps += layer[i].left + layer[i].beyond();
  return steps;
}

// Steps that the input which all blocks share holds: from the first that one still reads to the last that another reads.
inline std::int64_t mrf_shared_steps(const MrfArgs& args, std::int64_t strip) {
  int lead = 0;
  for (int b = 0; b < args.blocks; ++b) lead = std::max(lead, args.lead(b));
  return strip + 2 * lead;
}

// Floats of a block's strips; without those of the stage's input where that is `shared`.
inline std::int64_t block_floats(const MrfArgs& args, int block, std::int64_t strip, bool shared = false) {
  const int first = args.block_begin[block], slack = args.slack(block);
  std::int64_t steps = 0;
  for (int l = first; l < args.block_begin[block + 1]; ++l) {
    if (l == first && shared) continue;
    steps += mrf_input_steps(args.convs[l], strip, slack);
    if ((l - first) % args.depth == 0) steps += mrf_residual_steps(args.convs + l, args.depth, strip, slack);
  }
  return steps * args.width();
}

// Floats of scratch memory that any one convolution of the stage needs.
inline std::int64_t mrf_scratch(const MrfArgs& args, std::int64_t strip) {
  std::int64_t floats = 0;
  for (int b = 0; b < args.blocks; ++b) {
    for (int l = args.block_begin[b]; l < args.block_begin[b + 1]; ++l) {
      const MrfConv& conv = args.convs[l];
      if (conv.direct()) continue;
      floats = std::max(floats, toom_cook_floats(conv.shape, args.width(), strip + args.slack(b),
                                                  args.team ? args.team->parts : 1));
    }
  }
  return floats;
}

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const MrfArgs& args, std::int64_t steps) {
  const std::int64_t strip = mrf_strip(args, steps);
  const bool shared = args.shares_input();
  std::int64_t floats = strip * args.width() + mrf_scratch(args, strip);
  for (int b = 0; b < args.blocks; ++b) floats += block_floats(args, b, strip, shared);
  return floats + (shared ? 2 * mrf_shared_steps(args, strip) * args.width() : 0);
}

// The same for all `steps` of one block by itself.
inline std::int64_t mrf_block_floats(const MrfArgs& args, int block, std::int64_t steps) {
  const std::int64_t strip = mrf_strip(args, steps);
  return mrf_scratch(args, strip) + block_floats(args, block, strip);
}

}  // namespace fastvoc
