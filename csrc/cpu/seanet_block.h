// seanet_block: y = shortcut(x) + conv2(act(conv1(act(x)))), strip by strip; the last two convolutions are one product over
// rows that hold the hidden channels and the input side by side.
#pragma once

#include "conv1d.h"
#include "seanet_block_args.h"

namespace fastvoc::FASTVOC_ISA {

// Copies the steps [from, from + count) to the rows at `to`, zeros up to whole panels.
inline void copy_rows(const Source& source, std::int64_t from, std::int64_t count, float* to, std::ptrdiff_t row) {
  const int width = padded(source.channels);
  for (std::int64_t t = 0; t < count; ++t, to += row) {
    const float* x = source.data + (from + t) * source.step;
    if (source.channel == 1) {
      std::memcpy(to, x, static_cast<std::size_t>(source.channels) * sizeof(float));
    } else {
      for (int c = 0; c < source.channels; ++c) to[c] = x[c * source.channel];
    }
    std::fill(to + source.channels, to + width, 0.0f);
  }
}

inline void seanet_block(const SeanetBlockArgs& args, const Source& source, const Sink& sink, std::int64_t begin,
                         std::int64_t end, float* workspace) {
  const Conv1dArgs& conv1 = args.conv1;
  const int cin = padded(conv1.cin), hidden = padded(conv1.cout), cout = padded(args.cout), joint = args.joint();
  const std::int64_t strip = seanet_strip(args, end - begin);
  const int inputs = args.identity ? hidden : hidden + conv1.cin;
  float* held = workspace;
  float* both = held + (strip + args.span()) * cin;
  float* result = both + strip * joint;
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    padded_rows(conv1, source, t - conv1.left, t + count - 1 - conv1.left + args.span(), held);
    copy_rows(source, t + args.shift, count, both + hidden, joint);
    const TileInput first{held,
                          cin,
                          static_cast<std::ptrdiff_t>(conv1.dilation) * cin,
                          conv1.weight,
                          static_cast<std::ptrdiff_t>(conv1.kernel) * conv1.cin * kPanel,
                          conv1.bias,
                          conv1.kernel,
                          conv1.cin};
    conv_rows(first, {nullptr, both, nullptr, nullptr, 0, joint, 0, 0, &conv1.post, 0, 1.0f}, count, hidden / kPanel);
    const TileInput second{both, joint, 0, args.weight, static_cast<std::ptrdiff_t>(inputs) * kPanel, args.bias, 1, inputs};
    const bool direct = cout == args.cout;
    float* const rows = direct ? sink.data + t * cout : result;
    const float* added = args.identity ? both + hidden : nullptr;
    conv_rows(second, {rows, nullptr, added, nullptr, cout, 0, joint, 0, nullptr, 0, 1.0f}, count, cout / kPanel);
    if (!direct) store_rows(sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
