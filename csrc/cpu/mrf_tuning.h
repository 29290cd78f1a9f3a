// How mrf is cut: ranges or a team, strips and what they begin at.
#pragma once

#include <numeric>

#include "mrf_args.h"

namespace fastvoc {

// How the threads share a stage: each a range of its steps, of which what lies around the ends is computed twice; as a team the
// output channels of every convolution; or each some of its blocks.
enum class MrfCut { kRanges, kTeam, kBlocks };

// What each of them is taken to cost one item of `steps`, in multiply-adds of the thread that has most of them.
inline MrfCut mrf_cut(const MrfArgs& args, std::int64_t steps, std::int64_t threads) {
  constexpr std::int64_t fork = 600'000, mean = 8;  // the time of a fork and join, and of a block's value on its way to the mean
  const std::int64_t parts = std::clamp<std::int64_t>((padded(args.channels) / kPanelWidth + 1) / 2, 1, threads);
  const int each = static_cast<int>(ceil_div(args.blocks, threads));  // blocks of a thread
  std::int64_t taps = 0, forks = 0, own = 0, most = 0;
  for (int b = 0; b < args.blocks; ++b) {
    if (b % each == 0) own = 0;
    for (int i = args.block_begin[b]; i < args.block_begin[b + 1]; ++i) {
      own += args.convs[i].depthwise() ? 0 : args.convs[i].shape.kernel;
      taps += args.convs[i].depthwise() ? 0 : args.convs[i].shape.kernel;
      forks += args.convs[i].direct() ? 1 : 2;
    }
    most = std::max(most, own);
  }
  const std::int64_t step = std::int64_t{1} * args.channels * args.channels;
  const bool ranges = steps / threads >= args.around() / 2;
  const std::int64_t by_ranges = step * taps * (ranges ? steps / threads + args.around() / 4 : steps);
  const std::int64_t by_team = step * taps * ceil_div(steps, parts) + fork * forks * ceil_div(steps, ranges ? 192 : steps);
  const std::int64_t by_blocks = (step * most + mean * args.channels * args.blocks) * steps + fork;
  if (by_blocks < std::min(by_ranges, by_team)) return MrfCut::kBlocks;
  return by_team < by_ranges && parts > 1 ? MrfCut::kTeam : MrfCut::kRanges;
}

constexpr int kMaxGranule = 720;

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

}  // namespace fastvoc
