// What the glue hands to mrf.
#pragma once

#include <numeric>

#include "toom_cook_args.h"

namespace fastvoc {

constexpr int kMaxBlocks = 16;
constexpr int kMaxConvs = 32;  // of one block
constexpr int kMaxGranule = 720;

// How the convolutions pad: half on either side, or zeros before the first step only.
enum class MrfPad : int { kZeros = 0, kReflect = 1, kCausal = 2 };  // the numbers of fastvoc/ops/mrf.py

// One convolution of a residual block, but for its weights; `back` and `ahead` are the sums of the paddings on the left and on the right of the
// convolutions after it in its block.
struct MrfConv {
  ToomCook shape;
  int left;
  int right;
  int back;
  int ahead;
  Act act;  // before it

  bool direct() const { return shape.scheme == Scheme::kDirect; }
  // Outputs are made in whole blocks from a multiple of it on, and read so far beyond the last one.
  int block() const { return direct() ? 1 : shape.block(); }
  int beyond() const { return right + (direct() ? 0 : shape.extra()); }
};

struct MrfArgs {
  const MrfConv* convs;
  const int* block_begin;  // index of each block's first convolution, and the total at the end
  int blocks;
  int depth;
  int channels;
  bool reflect;
  int granule;  // where ranges and strips of outputs may begin: at multiples of it
  const Team* team = nullptr;

  // Elements of a row of the strips.
  int width() const { return narrow_width(channels); }

  // Whether all blocks begin with the same activation of the stage's input and the same padding, so that they share both.
  bool shares_input() const {
    const auto same = [&](const Act& a, const Act& b) {
      return a.kind == ActKind::kLeaky && b.kind == a.kind && b.slope == a.slope && b.steps == a.steps && b.zero == a.zero;
    };
    bool shared = blocks > 1 && !reflect;
    for (int b = 0; b < blocks; ++b) shared = shared && same(convs[0].act, convs[block_begin[b]].act);
    return shared;
  }

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

  // Whether `threads` that share the output channels of every convolution beat ranges of their own of `steps` steps, which
  // compute twice what lies around their ends, or one range where those would be too short.
  bool wants_team(std::int64_t steps, std::int64_t threads) const {
    constexpr std::int64_t fork = 600'000;  // multiply-adds in the time of a fork and join
    std::int64_t taps = 0, forks = 0;
    for (int i = 0; i < block_begin[blocks]; ++i) {
      taps += convs[i].shape.kernel;
      forks += convs[i].direct() ? 1 : 2;
    }
    const bool ranges = steps / threads >= around() / 2;
    const std::int64_t saved = ranges ? around() / 4 : steps - steps / threads;
    return saved * taps * channels * channels > fork * forks * ceil_div(steps, ranges ? 192 : steps);
  }

  // At most the steps by which whole blocks make a layer run ahead of what is needed.
  int slack(int block) const {
    int steps = 0;
    for (int l = block_begin[block]; l < block_begin[block + 1]; ++l) steps += convs[l].block();
    return steps;
  }

  // At least the steps that the layers of a block begin early and run ahead, together.
  int lead(int block) const {
    int steps = 2 * slack(block);
    for (int l = block_begin[block]; l < block_begin[block + 1]; ++l) steps += convs[l].left + convs[l].beyond();
    return steps;
  }
};

// Steps after which the tiles of every convolution begin anew and are whole register tiles of 12 rows; 0 where that is far.
inline std::int64_t mrf_period(const MrfArgs& args) {
  std::int64_t period = 12;
  for (int i = 0; i < args.block_begin[args.blocks]; ++i) {
    const MrfConv& conv = args.convs[i];
    period = std::lcm(period, std::lcm(conv.block(), conv.direct() ? 12 : 12 * conv.shape.tile()));
    if (period > kMaxGranule) return 0;
  }
  return period;
}

// Output steps per strip. The weights of wide layers pass through the caches once per strip, those of Toom-Cook twice as many,
// so their strips are longer than what fits beside them.
inline std::int64_t mrf_steps(const MrfArgs& args, std::int64_t longest) {
  const int width = args.width(), convs = args.block_begin[args.blocks];
  const auto has = [&](auto property) { return std::any_of(args.convs, args.convs + convs, property); };
  const bool halves = has([](const MrfConv& conv) { return conv.shape.scheme == Scheme::kF33; });
  const bool direct = !has([](const MrfConv& conv) { return !conv.direct(); });
  const std::int64_t least = direct ? 192 : halves ? 360 : width >= 256 ? 768 : 384;
  return std::min(std::max(strip_steps(width, longest), least), longest);
}

// The same in whole periods or granules, unless one strip is enough.
inline std::int64_t mrf_strip(const MrfArgs& args, std::int64_t longest) {
  const std::int64_t fit = mrf_steps(args, longest);
  if (fit == longest) return longest;
  const bool halves = std::any_of(args.convs, args.convs + args.block_begin[args.blocks],
                                  [](const MrfConv& conv) { return conv.shape.scheme == Scheme::kF33; });
  const std::int64_t period = halves ? mrf_period(args) : 0;
  if (period && period <= fit) return fit / period * period;
  return ceil_div(fit, args.granule) * args.granule;
}

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

}  // namespace fastvoc
