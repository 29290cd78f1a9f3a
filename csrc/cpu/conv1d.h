// conv1d: y = post(conv(pad(pre(x))) + bias + residual), strip by strip.
#pragma once

#include "conv1d_args.h"
#include "strip.h"
#include "team.h"
#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// Adds the residual to `count` computed rows, activates them and writes them to the output from step `t` on.
inline void finish_rows(const Conv1dArgs& args, const Source* residual, const Sink& sink, std::int64_t t, float* rows,
                        std::int64_t count) {
  const int width = padded(args.cout);
  for (std::int64_t i = 0; residual && i < count; ++i) {
    const float* r = residual->data + (t + i) * residual->step;
    for (int c = 0; c < args.cout; ++c) rows[i * width + c] += r[c * residual->channel];
  }
  const bool by_channel = args.post.kind == ActKind::kSnake;
  if (by_channel) activate_rows(args.post, rows, width, count, 0, width);
  store_rows(sink, t, rows, count);
  if (!by_channel) activate_flat(args.post, sink.data + t * args.cout, count * args.cout);
}

// The step that padding step t repeats; negative for zeros.
inline std::int64_t padding_source(std::int64_t t, std::int64_t steps, Pad pad) {
  if (pad == Pad::kZeros) return -1;
  if (pad == Pad::kReplicate) return t < 0 ? 0 : steps - 1;
  return t < 0 ? -t : 2 * (steps - 1) - t;
}

// Fills `rows` with the padded, activated steps [from, to).
inline void padded_rows(const Conv1dArgs& args, const Source& source, std::int64_t from, std::int64_t to, float* rows) {
  const int width = padded(args.cin);
  const std::int64_t valid = std::clamp<std::int64_t>(0, from, to), end = std::clamp(source.steps, valid, to);
  const auto pad = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const std::int64_t s = padding_source(t, source.steps, args.pad);
      float* row = rows + (t - from) * width;
      if (s < 0) {
        std::memset(row, 0, static_cast<std::size_t>(width) * sizeof(float));
      } else {
        load_rows(source, s, s + 1, nullptr, row, args.pre);
      }
    }
  };
  pad(from, valid);
  load_rows(source, valid, end, nullptr, rows + (valid - from) * width, args.pre);
  pad(end, to);
}

inline void conv1d(const Conv1dArgs& args, const Source& source, const Source* residual, const Sink& sink,
                   std::int64_t begin, std::int64_t end, float* workspace) {
  const int cin = padded(args.cin), cout = padded(args.cout);
  const std::int64_t strip = conv1d_strip(args, end - begin);
  const std::int64_t span = static_cast<std::int64_t>(args.dilation) * (args.kernel - 1) + 1;
  float* result = workspace;
  float* held = workspace + strip * cout;
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    const std::int64_t from = t * args.stride - args.left;
    const std::int64_t to = (t + count - 1) * args.stride - args.left + span;
    padded_rows(args, source, from, to, held);
    const TileInput tile{held,
                         static_cast<std::ptrdiff_t>(args.stride) * cin,
                         static_cast<std::ptrdiff_t>(args.dilation) * cin,
                         args.weight,
                         static_cast<std::ptrdiff_t>(args.kernel) * args.cin * kPanel,
                         args.bias,
                         args.kernel,
                         args.cin};
    const TileOutput out{result, nullptr, nullptr, nullptr, cout, 0, 0, 0, nullptr, 0, 1.0f};
    share_panels(args.team, cout / kPanel, [&](int first, int last, int) {
      conv_rows(panels_from(tile, first), shifted(out, first * kPanel), count, last - first);
    });
    finish_rows(args, residual, sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
