// upsample: an activation and a transposed convolution, each output phase an ordinary convolution (polyphase form).
#pragma once

#include "strip.h"
#include "team.h"
#include "tile.h"
#include "upsample_args.h"

namespace fastvoc::FASTVOC_ISA {

inline void upsample(const UpsampleArgs& args, const Source& source, const Sink& sink, std::int64_t begin,
                     std::int64_t end, float* workspace) {
  const int cin = padded(args.cin), cout = padded(args.cout);
  const std::int64_t stride = args.stride;
  const std::int64_t history = std::max(args.reach() - 1, 0);
  // Output step t is step n = t + left of the full result, made of the input steps q, q - 1, ... with q = n / stride.
  const std::int64_t q_begin = (begin + args.left) / stride;
  const std::int64_t q_end = (end - 1 + args.left) / stride + 1;
  const std::int64_t strip = upsample_strip(args, q_end - q_begin);
  float* result = workspace;
  float* held = workspace + strip * stride * cout;
  for (std::int64_t q = q_begin; q < q_end; q += strip) {
    const std::int64_t count = std::min(strip, q_end - q);
    Strip in{held, cin, q - history, std::min(q + count, source.steps)};
    const std::int64_t valid = std::max<std::int64_t>(in.first, 0);
    if (valid < in.end) {
      load_rows(source, valid, in.end, nullptr, in.at(valid), args.pre);
    } else {
      in.end = valid;
    }
    in.pad_left(false);
    in.pad_right(q + count, source.steps, false);
    share_panels(args.team, cout / kPanel, [&](int first, int last, int) {
      const float* w = args.weight;
      for (int phase = 0; phase < stride; ++phase) {
        const int taps = args.taps(phase);
        const std::ptrdiff_t panel = static_cast<std::ptrdiff_t>(taps) * args.cin * kPanel;
        const TileInput tile{in.at(q), cin, -cin, w, panel, args.bias, taps, args.cin};
        const TileOutput out{result + phase * cout, nullptr, nullptr, nullptr, stride * cout, 0, 0, 0, nullptr, 0, 1.0f};
        conv_rows(panels_from(tile, first), shifted(out, first * kPanel), count, last - first);
        w += panel * (cout / kPanel);
      }
    });
    const std::int64_t from = std::max(begin, q * stride - args.left);
    const std::int64_t to = std::min(end, (q + count) * stride - args.left);
    store_rows(sink, from, result + (from + args.left - q * stride) * cout, to - from);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
