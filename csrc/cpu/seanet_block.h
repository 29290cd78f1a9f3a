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
  const TileInput in{p.x, p.row, p.tap, p.w, static_cast<std::ptrdiff_t>(p.taps) * p.cin * kPanel, p.bias, p.taps, p.cin};
  float* const raw = p.act ? nullptr : p.y;
  float* const act = p.act ? p.y : nullptr;
  conv_rows(in, {raw, act, p.residual, nullptr, p.y_row, p.y_row, p.residual_row, 0, p.act, 0, 1.0f}, rows, panels);
}

inline void multiply(const Product<Bf16>& p, std::int64_t rows, int panels) {
  static constexpr Act identity;
  const int pairs = p.cin / 2;
  const PairInput in{reinterpret_cast<const Pair*>(p.x),
                     p.row / 2,
                     p.tap / 2,
                     reinterpret_cast<const Pair*>(p.w),
                     static_cast<std::ptrdiff_t>(p.taps) * pairs * kPanel,
                     p.bias,
                     p.taps,
                     pairs};
  conv_rows(in, {p.y, p.y_row, p.residual, p.residual_row, p.act ? p.act : &identity, 0}, rows, panels);
}

// Fills `rows` with the padded, activated steps [from, to).
inline void padded_rows(const Conv1dArgs& args, const SourceOf<Bf16>& source, std::int64_t from, std::int64_t to, Bf16* rows) {
  const int width = padded(args.cin);
  const std::int64_t valid = std::clamp<std::int64_t>(0, from, to), end = std::clamp(source.steps, valid, to);
  const auto pad = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const std::int64_t s = padding_source(t, source.steps, args.pad);
      Bf16* row = rows + (t - from) * width;
      if (s < 0) {
        std::fill_n(row, width, Bf16{});
      } else {
        load_rows(source, s, s + 1, row, args.pre);
      }
    }
  };
  pad(from, valid);
  load_rows(source, valid, end, rows + (valid - from) * width, args.pre);
  pad(end, to);
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
                                 conv1.bias,
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
