// What the glue hands to the kernels: raw pointers, strides and shapes, independent of the instruction set.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace fastvoc {

constexpr int kPanelWidth = 16;

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Channels rounded up to whole panels: the width of every row inside the engine.
inline int padded(int channels) { return static_cast<int>(ceil_div(channels, kPanelWidth)) * kPanelWidth; }

// One item's input: element (time t, channel c) is data[t * step + c * channel], valid for t in [0, steps).
struct Source {
  const float* data;
  std::ptrdiff_t step;
  std::ptrdiff_t channel;
  std::int64_t steps;
  int channels;
};

// One item's output, time-major: element (t, c) is data[t * channels + c].
struct Sink {
  float* data;
  int channels;
};

struct Conv1dArgs {
  const float* weight;
  const float* bias;
  int cout;
  int cin;
  int kernel;
  int stride;
  int dilation;
  int left;
  int right;
  bool reflect;
  bool tanh;
  float pre_slope;
  float post_slope;
};

struct UpsampleArgs {
  const float* weight;
  const float* bias;
  int cout;
  int cin;
  int kernel;
  int stride;
  int left;
  int right;
  float slope;

  int taps(int phase) const { return phase < kernel ? (kernel - phase - 1) / stride + 1 : 0; }
  int reach() const { return taps(0); }
};

// One convolution of a residual block; `reach` is the sum of the paddings of the convolutions after it in its block.
struct MrfConv {
  const float* weight;
  const float* bias;
  int kernel;
  int dilation;
  int pad;
  int reach;
};

struct MrfArgs {
  const MrfConv* convs;
  const int* block_begin;  // index of each block's first convolution, and the total at the end
  int blocks;
  int depth;
  int channels;
  float slope;
  bool reflect;

  // Steps that a block sees to either side of an output step.
  int halo(int block) const {
    const MrfConv& first = convs[block_begin[block]];
    return first.pad + first.reach;
  }
};

// Output steps per strip: what one layer touches should stay in a 1 MB L2 beside a panel of weights.
constexpr std::int64_t kStripBytes = 96 * 1024;

inline std::int64_t strip_steps(std::int64_t row_floats, std::int64_t longest) {
  const std::int64_t fit = kStripBytes / (row_floats * static_cast<std::int64_t>(sizeof(float)));
  const std::int64_t steps = std::max<std::int64_t>(fit / 24 * 24, 24);
  return std::min(steps, std::max<std::int64_t>(longest, 1));
}

constexpr int kMaxBlocks = 16;
constexpr int kMaxConvs = 32;  // of one block

// Input steps per strip of an upsampling: its results are `stride` rows for each.
inline std::int64_t upsample_strip(const UpsampleArgs& args, std::int64_t longest) {
  const std::int64_t fit = 4 * kStripBytes / (static_cast<std::int64_t>(args.stride) * padded(args.cout) * 4);
  return std::min(std::max<std::int64_t>(fit / 12 * 12, 12), std::max<std::int64_t>(longest, 1));
}

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
inline std::int64_t workspace_floats(const Conv1dArgs& args, std::int64_t steps) {
  const int cin = padded(args.cin), cout = padded(args.cout);
  const std::int64_t strip = strip_steps(std::max(cin, cout), steps);
  const std::int64_t span = static_cast<std::int64_t>(args.dilation) * (args.kernel - 1) + 1;
  return strip * cout + (strip * args.stride + span + 2 * (args.left + args.right)) * cin;
}

inline std::int64_t workspace_floats(const UpsampleArgs& args, std::int64_t steps) {
  const std::int64_t strip = upsample_strip(args, steps / args.stride + 2);
  return strip * args.stride * padded(args.cout) + (strip + args.reach()) * padded(args.cin);
}

inline std::int64_t workspace_floats(const MrfArgs& args, std::int64_t steps) {
  const std::int64_t strip = strip_steps(padded(args.channels), steps);
  std::int64_t floats = strip * padded(args.channels);
  for (int b = 0; b < args.blocks; ++b) floats += block_floats(args, b, strip);
  return floats;
}

// The kernels built for one instruction set. Each computes the output steps [begin, end) of one item.
struct Engine {
  void (*conv1d)(const Conv1dArgs&, const Source&, const Source* residual, const Sink&, std::int64_t begin,
                 std::int64_t end, float* workspace);
  void (*upsample)(const UpsampleArgs&, const Source&, const Sink&, std::int64_t begin, std::int64_t end,
                   float* workspace);
  void (*mrf)(const MrfArgs&, const Source&, const Sink&, std::int64_t begin, std::int64_t end, float* workspace);
};

}  // namespace fastvoc
