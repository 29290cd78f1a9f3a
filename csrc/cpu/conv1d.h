// conv1d: y = post(conv(pad(pre(x))) + bias + residual), strip by strip.
#pragma once

#include "conv1d_args.h"
#include "math.h"
#include "strip.h"
#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// Applies the output activation to `count` floats in place.
inline void activate(const Conv1dArgs& args, float* y, std::int64_t count) {
  if (!args.tanh && args.post_slope == 1.0f) return;
  float rest[FASTVOC_WIDTH] = {};
  for (std::int64_t i = 0; i < count; i += FASTVOC_WIDTH) {
    const std::int64_t n = std::min<std::int64_t>(FASTVOC_WIDTH, count - i);
    float* at = n == FASTVOC_WIDTH ? y + i : rest;
    if (n < FASTVOC_WIDTH) std::memcpy(rest, y + i, static_cast<std::size_t>(n) * sizeof(float));
    store(at, args.tanh ? tanh(load(at)) : leaky(load(at), args.post_slope));
    if (n < FASTVOC_WIDTH) std::memcpy(y + i, rest, static_cast<std::size_t>(n) * sizeof(float));
  }
}

// Adds the residual, writes `count` computed rows to the output from step `t` on, and activates them there.
inline void finish_rows(const Conv1dArgs& args, const Source* residual, const Sink& sink, std::int64_t t, float* rows,
                        std::int64_t count) {
  const int width = padded(args.cout);
  for (std::int64_t i = 0; residual && i < count; ++i) {
    const float* r = residual->data + (t + i) * residual->step;
    for (int c = 0; c < args.cout; ++c) rows[i * width + c] += r[c * residual->channel];
  }
  store_rows(sink, t, rows, count);
  activate(args, sink.data + t * args.cout, count * args.cout);
}

inline void conv1d(const Conv1dArgs& args, const Source& source, const Source* residual, const Sink& sink,
                   std::int64_t begin, std::int64_t end, float* workspace) {
  const int cin = padded(args.cin), cout = padded(args.cout);
  const std::int64_t strip = strip_steps(std::max(cin, cout), end - begin);
  const std::int64_t span = static_cast<std::int64_t>(args.dilation) * (args.kernel - 1) + 1;
  float* result = workspace;
  float* held = workspace + strip * cout;
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    const std::int64_t from = t * args.stride - args.left;
    const std::int64_t to = (t + count - 1) * args.stride - args.left + span;
    // Reflection reaches back to steps that a short strip at an edge may not hold otherwise.
    const std::int64_t first = args.reflect && to > source.steps ? std::min(from, 2 * (source.steps - 1) - to + 1) : from;
    const std::int64_t last = args.reflect && from < 0 ? std::max(to, 1 - from) : to;
    Strip in{held, cin, first, std::min(last, source.steps)};
    const std::int64_t valid = std::max<std::int64_t>(first, 0);
    load_rows(source, valid, in.end, nullptr, in.at(valid), args.pre_slope);
    in.pad_left(args.reflect);
    in.pad_right(to, source.steps, args.reflect);
    const TileInput tile{in.at(from),
                         static_cast<std::ptrdiff_t>(args.stride) * cin,
                         static_cast<std::ptrdiff_t>(args.dilation) * cin,
                         args.weight,
                         static_cast<std::ptrdiff_t>(args.kernel) * args.cin * kPanel,
                         args.bias,
                         args.kernel,
                         args.cin};
    const TileOutput out{result, nullptr, nullptr, nullptr, cout, 0, 0, 0, 1.0f, 1.0f};
    conv_rows(tile, out, count, cout / kPanel);
    finish_rows(args, residual, sink, t, result, count);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
