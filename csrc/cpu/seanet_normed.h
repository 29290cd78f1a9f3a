// seanet_block with group norms, in three passes over an item: a norm needs the moments of all that the convolution before it
// makes.
#pragma once

#include "group_norm_act.h"
#include "seanet_block.h"
#include "seanet_normed_args.h"

namespace fastvoc::FASTVOC_ISA {

// The steps [begin, end) of the first convolution and of the shortcut.
inline void seanet_begin(const SeanetNormedArgs& args, const Source& source, std::int64_t begin, std::int64_t end,
                         const SeanetRows& rows, SeanetMoments& moments, float* workspace) {
  const Conv1dArgs& conv1 = args.block.conv1;
  const int cin = padded(conv1.cin), hidden = args.block.hidden(), cout = padded(args.block.cout);
  const std::int64_t count = end - begin;
  float* const held = workspace;
  padded_rows(conv1, source, begin - conv1.left, end - 1 - conv1.left + args.block.span(), held);
  const std::ptrdiff_t tap = static_cast<std::ptrdiff_t>(conv1.dilation) * cin;
  float* const h = rows.hidden + begin * hidden;
  multiply(Product<float>{held, cin, tap, args.block.weight1, args.block.bias1, conv1.kernel, conv1.cin, h, hidden, nullptr, 0,
                          nullptr},
           count, hidden / kPanel);
  moments.hidden = moments_of(h, hidden, count, conv1.cout);
  if (!args.shortcut) return;
  const float* x = source.data + begin * source.step;
  std::ptrdiff_t row = source.step;
  if (source.channel != 1) {
    copy_rows(source, begin, count, held, cin);
    x = held;
    row = cin;
  }
  float* const y = rows.shortcut + begin * cout;
  multiply(Product<float>{x, row, 0, args.shortcut, args.bias_shortcut, 1, conv1.cin, y, cout, nullptr, 0, nullptr}, count,
           cout / kPanel);
  moments.shortcut = moments_of(y, cout, count, args.block.cout);
}

// The steps [begin, end) of the second convolution, from the first one's normed and activated.
inline void seanet_middle(const SeanetNormedArgs& args, const Moments& hidden, std::int64_t begin, std::int64_t end,
                          const SeanetRows& rows, SeanetMoments& moments, float* workspace) {
  const int width = args.block.hidden(), cout = padded(args.block.cout);
  const std::int64_t count = end - begin;
  float* const scale = workspace;
  float* const active = workspace + width;
  float* const y = rows.inner + begin * cout;
  norm_scale(args.norm1, hidden, args.eps, scale);
  normalise(args.norm1, scale, hidden.mean, {rows.hidden + begin * width, width}, {nullptr, 0}, active, width, count, width);
  multiply(Product<float>{active, width, 0, args.weight2, args.bias2, 1, width, y, cout, nullptr, 0, nullptr}, count,
           cout / kPanel);
  moments.inner = moments_of(y, cout, count, args.block.cout);
}

// The steps [begin, end) of the output.
inline void seanet_end(const SeanetNormedArgs& args, const SeanetNorms& norms, const Source& source, const SeanetRows& rows,
                       const Sink& sink, std::int64_t begin, std::int64_t end, float* workspace) {
  const int cout = padded(args.block.cout);
  const bool direct = cout == args.block.cout;
  Rows added{rows.shortcut + begin * cout, cout};
  if (args.block.identity && direct && source.channel == 1) {
    added = {source.data + begin * source.step, source.step};
  } else if (args.block.identity) {
    copy_rows(source, begin, end - begin, workspace, cout);
    added = {workspace, cout};
  }
  float* const y = direct ? sink.data + begin * cout : workspace + seanet_steps(args) * cout;
  for (std::int64_t t = 0; t < end - begin; ++t) {
    const float* inner = rows.inner + (begin + t) * cout;
    const float* shortcut = added.data + t * added.row;
    for (int c = 0; c < cout; c += FASTVOC_WIDTH) {
      const Vec both = load(inner + c) * load(norms.scale_inner + c) + load(norms.shift + c);
      store(y + t * cout + c, load(shortcut + c) * load(norms.scale_shortcut + c) + both);
    }
  }
  if (!direct) store_rows(sink, begin, y, end - begin);
}

}  // namespace fastvoc::FASTVOC_ISA
