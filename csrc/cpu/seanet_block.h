// seanet_block: y = shortcut(x) + conv2(act(conv1(act(x)))), strip by strip; the last two convolutions are one product over
// rows that hold the hidden channels and the input side by side.
#pragma once

#include "conv1d.h"
#include "seanet_block_args.h"
#include "tile_bf16.h"

namespace fastvoc::FASTVOC_ISA {

// A product of rows by panels of weights: steps are `row` elements apart, taps `tap`; results are activated by `act` unless
// it is null.
template <class Element>
struct Product {
  const Element* x;
  std::ptrdiff_t row;
  std::ptrdiff_t tap;
  const Element* w;
  const float* bias;
  int taps;
  int cin;
  Element* y;
  std::ptrdiff_t y_row;
  const Element* residual;
  std::ptrdiff_t residual_row;
  const Act* act;
};

inline void multiply(const Product<float>& p, std::int64_t rows, int panels) {
  const auto in = tile_input(p.x, p.row, p.tap, Filter<float>{p.w, p.bias}, p.taps, p.cin);
  float* const raw = p.act ? nullptr : p.y;
  float* const act = p.act ? p.y : nullptr;
  conv_rows(in, {raw, act, p.residual, nullptr, p.y_row, p.y_row, p.residual_row, 0, p.act, 0, 1.0f}, rows, panels);
}

inline void multiply(const Product<Bf16>& p, std::int64_t rows, int panels) {
  static constexpr Act identity;
  const auto in = tile_input(p.x, p.row, p.tap, Filter<Bf16>{p.w, p.bias}, p.taps, p.cin);
  conv_rows(in, {p.y, p.y_row, p.residual, p.residual_row, p.act ? p.act : &identity, 0}, rows, panels);
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
    const Product<Element> first{held,
                                 cin,
                                 static_cast<std::ptrdiff_t>(conv1.dilation) * cin,
                                 args.weight1,
                                 args.bias1,
                                 conv1.kernel,
                                 args.channels(),
                                 both,
                                 joint,
                                 nullptr,
                                 0,
                                 &conv1.post};
    multiply(first, count, hidden / kPanel);
    const bool direct = cout == args.cout;
    Element* const rows = direct ? sink.data + t * cout : result;
    const Element* added = args.identity ? both + hidden : nullptr;
    const Product<Element> second{both, joint, 0,    args.weight2, args.bias, 1,
                                  args.inputs(), rows, cout, added, joint, nullptr};
    multiply(second, count, cout / kPanel);
    if (!direct) store_rows(sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
