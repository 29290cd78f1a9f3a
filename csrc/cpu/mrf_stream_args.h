// What the glue hands to mrf_stream, and how the state of a stage lies in memory.
#pragma once

#include "mrf_args.h"

namespace fastvoc {

// A stream that has seen `have` input steps has computed convolution l of a block as far as this; all blocks stop at the
// same output step, `have` minus the widest halo.
inline std::int64_t mrf_done(const MrfArgs& args, const MrfConv& conv, std::int64_t have) {
  return std::max<std::int64_t>(0, have - args.halo() + conv.reach);
}

// Steps of the input of convolution l, and of the residual of the layer that begins with it, that a stream keeps.
inline std::int64_t mrf_kept_input(const MrfArgs& args, int block, int l) {
  const MrfConv* convs = args.convs + args.block_begin[block];
  return 2 * convs[l].pad + (l ? 0 : args.halo() - args.halo(block));
}
inline std::int64_t mrf_kept_residual(const MrfArgs& args, int block, int l) {
  const MrfConv* convs = args.convs + args.block_begin[block];
  return (l ? convs[l - 1].reach : args.halo()) - convs[l + args.depth - 1].reach;
}

// Floats of the state of one block.
inline std::int64_t mrf_state_floats(const MrfArgs& args, int block) {
  std::int64_t steps = 0;
  for (int l = 0; l < args.block_begin[block + 1] - args.block_begin[block]; ++l) {
    steps += mrf_kept_input(args, block, l);
    if (l % args.depth == 0) steps += mrf_kept_residual(args, block, l);
  }
  return steps * padded(args.channels);
}

inline std::int64_t mrf_stream_strip(const MrfArgs& args, std::int64_t steps, bool last) {
  return strip_steps(padded(args.channels), last ? steps + args.halo() : steps);
}

// Floats of scratch memory for a chunk of up to `steps`.
inline std::int64_t mrf_stream_floats(const MrfArgs& args, int block, std::int64_t steps, bool last) {
  const std::int64_t wait = args.halo() - args.halo(block);
  return block_floats(args, block, mrf_stream_strip(args, steps, last)) + 2 * wait * padded(args.channels);
}

// A chunk of one item for one block: input steps [have, have + steps) of `source`, which ends there when `last`.
struct MrfChunk {
  Source source;
  std::int64_t have;
  std::int64_t steps;
  bool last;
  const float* before;  // the state, as it was and as it becomes
  float* after;
  float* result;  // rows of padded width
};

}  // namespace fastvoc
