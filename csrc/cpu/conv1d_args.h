// What the glue hands to conv1d.
#pragma once

#include "args.h"

namespace fastvoc {

struct Conv1dArgs {
  int cout;
  int cin;
  int kernel;
  int stride;
  int dilation;
  int left;
  int right;
  Pad pad;
  Act pre;
  Act post;
  bool paired = false;  // whether the weights have the sums of their two strides' taps behind them
  const Team* team = nullptr;

  // Whether two strides of taps may have them: fastvoc/ops/conv1d.py packs the weights alike.
  bool pairable() const { return cout > 1 && kernel == 2 * stride && dilation == 1 && cin % kPanelWidth == 0; }

  // Whether the lanes share out the products of one output channel, unless they are whole numbers: fastvoc/ops/conv1d.py
  // packs the weights alike.
  bool single() const { return cout == 1 && dilation == 1 && post.kind != ActKind::kSnake; }
};

// Steps of a strip. The weights of a wide layer pass through the caches once per strip, so its strips are longer, few and of
// about equal size.
inline std::int64_t conv1d_strip(const Conv1dArgs& args, std::int64_t steps) {
  constexpr std::int64_t wide = 512 * 1024, activations = 768 * 1024;
  const std::int64_t cin = padded(args.cin), cout = padded(args.cout), size = sizeof(float);
  if (cout * args.cin * args.kernel * size <= wide) return strip_steps(std::max(cin, cout), steps);
  const std::int64_t row = cin * args.stride * (args.paired ? 2 : 1) + cout;
  const std::int64_t most = std::max<std::int64_t>(activations / (row * size) / 12 * 12, 12);
  return ceil_div(ceil_div(steps, ceil_div(steps, most)), 12) * 12;
}

// Floats of scratch memory that a task of up to `steps` output steps needs.
inline std::int64_t workspace_floats(const Conv1dArgs& args, std::int64_t steps) {
  const int cin = padded(args.cin), cout = padded(args.cout);
  const std::int64_t strip = conv1d_strip(args, steps);
  const std::int64_t span = static_cast<std::int64_t>(args.dilation) * (args.kernel - 1) + 1;
  // One output channel is made in whole vectors, from whole vectors.
  const std::int64_t beyond = args.single() ? (kPanelWidth * args.stride + 2) * cin : 0;
  return strip * cout + (strip * args.stride * (args.paired ? 2 : 1) + span) * cin + beyond;
}

}  // namespace fastvoc
