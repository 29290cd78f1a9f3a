// seanet_block: y = shortcut(x) + conv2(act(conv1(act(x)))), strip by strip; the last two convolutions are one product over
// rows that hold the hidden channels and the input side by side.
#pragma once

#include "conv1d.h"
#include "seanet_block_args.h"

namespace fastvoc::FASTVOC_ISA {

// Where rows of a product go, in the type of the block, activated by `act` or as they are.
template <class Element>
TileOutputOf<Element, Element> block_rows(Element* y, std::ptrdiff_t row, const Act* act) {
  static constexpr Act identity;
  if constexpr (std::is_same_v<Element, float>) {
    if (!act) return {.raw = y, .raw_row = row};
  }
  return {.act = y, .act_row = row, .activation = act ? act : &identity};
}

// Copies the steps [from, from + count) to the rows at `to`, zeros up to whole panels.
template <class Element>
void copy_rows(const SourceOf<Element>& source, std::int64_t from, std::int64_t count, Element* to, std::ptrdiff_t row) {
  const int width = padded(source.channels);
  for (std::int64_t t = 0; t < count; ++t, to += row) {
    const Element* x = source.data + (from + t) * source.step;
    if (source.channel == 1) {
      std::copy_n(x, source.channels, to);
    } else {
      for (int c = 0; c < source.channels; ++c) to[c] = x[c * source.channel];
    }
    std::fill(to + source.channels, to + width, Element{});
  }
}

template <class Element>
void seanet_block(const SeanetBlockArgs<Element>& args, const SourceOf<Element>& source, const SinkOf<Element>& sink,
                  std::int64_t begin, std::int64_t end, float* workspace) {
  const Conv1dArgs& conv1 = args.conv1;
  const int cin = padded(conv1.cin), hidden = args.hidden(), cout = padded(args.cout), joint = args.joint();
  const std::int64_t strip = seanet_strip(args, end - begin);
  Element* held = reinterpret_cast<Element*>(workspace);
  Element* both = held + (strip + args.span()) * cin;
  Element* result = both + strip * joint;
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    padded_rows(conv1, source, t - conv1.left, t + count - 1 - conv1.left + args.span(), held);
    copy_rows(source, t + args.shift, count, both + hidden, joint);
    const auto in = tile_input(held, cin, static_cast<std::ptrdiff_t>(conv1.dilation) * cin,
                               Filter<Element>{args.weight1, args.bias1}, conv1.kernel, args.channels());
    conv_rows(in, block_rows(both, joint, &conv1.post), count, hidden / kPanel);
    const bool direct = cout == args.cout;
    auto out = block_rows(direct ? sink.data + t * cout : result, cout, nullptr);
    out.residual = args.identity ? both + hidden : nullptr;
    out.residual_row = joint;
    conv_rows(tile_input(both, joint, 0, Filter<Element>{args.weight2, args.bias}, 1, args.inputs()), out, count, cout / kPanel);
    if (!direct) copy_rows(sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
