// What the glue hands to mrf_stream, and how the state of a stage lies in memory.
#pragma once

#include "mrf_memory.h"

namespace fastvoc {

// A stream that has seen `have` input steps has computed convolution l of a block as far as this; all blocks stop at the
// same output step, `have` minus what the block that sees farthest has ahead.
inline std::int64_t mrf_done(const MrfArgs& args, const MrfConv& conv, std::int64_t have) {
  return std::max<std::int64_t>(0, have - args.ahead() + conv.ahead);
}

// Steps of the input of convolution l, and of the residual of the layer that begins with it, that a stream keeps.
inline std::int64_t mrf_kept_input(const MrfArgs& args, int block, int l) {
  const MrfConv* convs = args.convs + args.block_begin[block];
  return convs[l].left + convs[l].right + (l ? 0 : args.ahead() - args.ahead(block));
}
inline std::int64_t mrf_kept_residual(const MrfArgs& args, int block, int l) {
  const MrfConv* convs = args.convs + args.block_begin[block];
  return (l ? convs[l - 1].ahead : args.ahead()) - convs[l + args.depth - 1].ahead;
}

// Floats of the state of one block, whatever the strips hold.
inline std::int64_t mrf_state_floats(const MrfArgs& args, int block) {
  std::int64_t steps = 0;
  for (int l = 0; l < args.block_begin[block + 1] - args.block_begin[block]; ++l) {
    steps += mrf_kept_input(args, block, l);
    if (l % args.depth == 0) steps += mrf_kept_residual(args, block, l);
  }
  return steps * args.width();
}

inline std::int64_t mrf_stream_strip(const MrfArgs& args, std::int64_t steps, bool last) {
  return mrf_steps(args, std::max<std::int64_t>(last ? steps + args.ahead() : steps, 1));
}

// Floats of scratch memory for a chunk of up to `steps`.
inline std::int64_t mrf_stream_floats(const MrfArgs& args, int block, std::int64_t steps, bool last) {
  const std::int64_t wait = args.ahead() - args.ahead(block);
  const std::int64_t strip = mrf_stream_strip(args, steps, last);
  const std::int64_t one = mrf_scratch(args, strip) + block_floats(args, block, strip) + 2 * wait * args.width();
  return (args.team ? args.team->parts : 1) * ceil_div(one, kPanelWidth) * kPanelWidth;
}

// Ranges into which a block's `count` output steps are cut, to be computed at once: as many as there are threads where all of
// them are long beside what is computed twice. Where tiles begin changes Toom-Cook's rounding, so with it the number depends on
// the block and the chunk alone.
inline std::int64_t mrf_stream_ranges(const MrfArgs& args, int block, std::int64_t count) {
  bool direct = true;
  for (int l = args.block_begin[block]; l < args.block_begin[block + 1]; ++l) direct = direct && args.convs[l].direct();
  // The outputs of a block that sees less than another lag behind, and a range that starts anew reads nothing before the chunk.
  const int least = std::max(4 * args.around(block) + 1, args.around(block) + args.ahead() - args.ahead(block));
  if (direct) return args.team && count / args.team->parts >= least ? args.team->parts : 1;
  return args.blocks > 1 ? 1 : std::clamp<std::int64_t>(count / (6 * args.around(block) + 1), 1, 4);
}

// A chunk of one item for one block: input steps [have, have + steps) of `source`, which ends there when `last`.
template <class Given>
struct MrfChunk {
  SourceOf<Given> source;
  std::int64_t have;
  std::int64_t steps;
  bool last;
  const float* before;  // the state, as it was and as it becomes
  float* after;
  float* result;  // rows of padded width

  std::int64_t end() const { return have + steps; }
  // The output steps that it completes: [first, target).
  std::int64_t first(const MrfArgs& args) const { return std::max<std::int64_t>(have - args.ahead(), 0); }
  std::int64_t target(const MrfArgs& args) const { return last ? end() : end() - args.ahead(); }
};

}  // namespace fastvoc
