// seanet_block with group norms, in three passes over an item: a norm needs the moments of all that the convolution before it
// makes.
#pragma once

#include "group_norm_act.h"
#include "seanet_block.h"
#include "seanet_normed_args.h"

namespace fastvoc::FASTVOC_ISA {

// The steps [begin, end) of the first convolution and of the shortcut.
template <class Element>
void seanet_begin(const SeanetNormedArgs<Element>& args, const SourceOf<Element>& source, std::int64_t begin, std::int64_t end,
                         const SeanetRows<Element>& rows, SeanetMoments& moments, float* workspace) {
  const Conv1dArgs& conv1 = args.block.conv1;
  const int cin = padded(conv1.cin), hidden = args.block.hidden(), cout = padded(args.block.cout);
  const std::int64_t count = end - begin;
  Element* const held = reinterpret_cast<Element*>(workspace);
  padded_rows(conv1, source, begin - conv1.left, end - 1 - conv1.left + args.block.span(), held);
  const std::ptrdiff_t tap = static_cast<std::ptrdiff_t>(conv1.dilation) * cin;
  Element* const h = rows.hidden + begin * hidden;
  const Filter<Element> filter{args.block.weight1, args.block.bias1};
  conv_rows(tile_input(held, cin, tap, filter, conv1.kernel, args.block.channels()), block_rows(h, hidden, nullptr), count,
            hidden / kPanel);
  moments.hidden = moments_of(h, hidden, count, conv1.cout);
  if (!args.shortcut) return;
  const Element* x = source.data + begin * source.step;
  std::ptrdiff_t row = source.step;
  const int group = Numbers<Element>::kGroup;
  if (source.channel != 1 || conv1.cin % group || row % group) {
    copy_rows(source, begin, count, held, cin);
    x = held;
    row = cin;
  }
  Element* const y = rows.shortcut + begin * cout;
  conv_rows(tile_input(x, row, 0, Filter<Element>{args.shortcut, args.bias_shortcut}, 1, args.block.channels()),
            block_rows(y, cout, nullptr), count, cout / kPanel);
  moments.shortcut = moments_of(y, cout, count, args.block.cout);
}

// The steps [begin, end) of the second convolution, from the first one's normed and activated.
template <class Element>
void seanet_middle(const SeanetNormedArgs<Element>& args, const Moments& hidden, std::int64_t begin, std::int64_t end,
                          const SeanetRows<Element>& rows, SeanetMoments& moments, float* workspace) {
  const int width = args.block.hidden(), cout = padded(args.block.cout);
  const std::int64_t count = end - begin;
  float* const scale = workspace;
  Element* const active = reinterpret_cast<Element*>(workspace + width);
  Element* const y = rows.inner + begin * cout;
  norm_scale(args.norm1, hidden, args.eps, scale);
  normalise(args.norm1, scale, hidden.mean, Rows<Element>{rows.hidden + begin * width, width}, Rows<Element>{nullptr, 0}, active, width, count, width);
  conv_rows(tile_input(active, width, 0, Filter<Element>{args.weight2, args.bias2}, 1, width), block_rows(y, cout, nullptr),
            count, cout / kPanel);
  moments.inner = moments_of(y, cout, count, args.block.cout);
}

// The steps [begin, end) of the output.
template <class Element>
void seanet_end(const SeanetNormedArgs<Element>& args, const SeanetNorms& norms, const SourceOf<Element>& source, const SeanetRows<Element>& rows,
                       const SinkOf<Element>& sink, std::int64_t begin, std::int64_t end, float* workspace) {
  const int cout = padded(args.block.cout);
  const bool direct = cout == args.block.cout;
  Element* const space = reinterpret_cast<Element*>(workspace);
  Rows<Element> added{rows.shortcut + begin * cout, cout};
  if (args.block.identity && direct && source.channel == 1) {
    added = {source.data + begin * source.step, source.step};
  } else if (args.block.identity) {
    copy_rows(source, begin, end - begin, space, cout);
    added = {space, cout};
  }
  Element* const y = direct ? sink.data + begin * cout : space + seanet_steps(args) * cout;
  for (std::int64_t t = 0; t < end - begin; ++t) {
    const Element* inner = rows.inner + (begin + t) * cout;
    const Element* shortcut = added.data + t * added.row;
    for (int c = 0; c < cout; c += FASTVOC_WIDTH) {
      const Vec both = load(inner + c) * load(norms.scale_inner + c) + load(norms.shift + c);
      store(y + t * cout + c, load(shortcut + c) * load(norms.scale_shortcut + c) + both);
    }
  }
  if (!direct) copy_rows(sink, begin, y, end - begin);
}

}  // namespace fastvoc::FASTVOC_ISA
