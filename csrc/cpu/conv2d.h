// conv2d: y = pool(leaky(conv(x) + bias + residual)) over time and frequency, strip by strip of rows in time. A row is laid out
// flat, frequency by frequency, zeros between one row and the next, so that each time tap is a convolution along the rows.
#pragma once

#include "conv2d_args.h"
#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// Copies the rows [from, to) of an item, zeros where it has none, each followed by its zeros.
inline void load_bands(const Conv2dArgs& args, const Source& source, std::int64_t from, std::int64_t to, float* held) {
  const int floats = args.bands * args.cin, zeros = args.half() * args.cin;
  std::fill(held, held + zeros, 0.0f);
  held += zeros;
  for (std::int64_t t = from; t < to; ++t, held += floats + zeros) {
    const float* x = source.data + t * source.step;
    if (t < 0 || t >= source.steps) {
      std::fill(held, held + floats, 0.0f);
    } else if (source.channel == 1) {
      std::memcpy(held, x, static_cast<std::size_t>(floats) * sizeof(float));
    } else {
      for (int i = 0; i < floats; ++i) held[i] = x[i * source.channel];
    }
    std::fill(held + floats, held + floats + zeros, 0.0f);
  }
  std::fill(held, held + zeros, 0.0f);
}

// The larger of two, NaN where one of them is.
inline Vec larger(Vec a, Vec b) { return b > a ? b : (b == b ? a : b); }

// Channels [c, c + FASTVOC_WIDTH) of one output frequency: `y` are the rows of its inputs, `added` their residual or null.
inline Vec pooled(const Conv2dArgs& args, const float* y, const float* added, std::ptrdiff_t channel, int c) {
  const int width = padded(args.cout);
  const int present = std::min(FASTVOC_WIDTH, args.cout - c);
  Vec most{};
  for (int p = 0; p < args.pool; ++p, y += width) {
    Vec v = load(y + c);
    if (added) {
      const float* r = added + (static_cast<std::ptrdiff_t>(p) * args.cout + c) * channel;
      float values[FASTVOC_WIDTH] = {};
      for (int i = 0; i < present; ++i) values[i] = r[i * channel];
      v += load(values);
    }
    v = leaky(v, args.slope);
    most = p ? larger(most, v) : v;
  }
  return most;
}

inline void conv2d(const Conv2dArgs& args, const Source& source, const Source* residual, const Sink& sink,
                   std::int64_t begin, std::int64_t end, float* workspace) {
  const int width = padded(args.cout), columns = args.columns(), made = args.bands / args.pool;
  const std::int64_t strip = conv2d_strip(args, end - begin);
  const std::int64_t early = args.time / 2;
  float* none = workspace;
  float* result = none + width;
  float* held = result + strip * columns * width;
  std::fill(none, none + width, 0.0f);
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    load_bands(args, source, t - early, t + count + early, held);
    for (int k = 0; k < args.time; ++k) {
      const TileInput tile{held + static_cast<std::ptrdiff_t>(k) * columns * args.cin,
                           args.cin,
                           args.cin,
                           args.weight + k * args.panel_floats() * (width / kPanel),
                           static_cast<std::ptrdiff_t>(args.panel_floats()),
                           k ? none : args.bias,
                           args.taps,
                           args.cin};
      const TileOutput out{.raw = result, .residual = k ? result : nullptr, .raw_row = width, .residual_row = width};
      conv_rows(tile, out, count * columns, width / kPanel);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const float* y = result + i * columns * width;
      const float* added = residual ? residual->data + (t + i) * residual->step : nullptr;
      float* to = sink.data + (t + i) * sink.channels;
      for (int f = 0; f < made; ++f, to += args.cout) {
        const int band = f * args.pool;
        const float* r = added ? added + static_cast<std::ptrdiff_t>(band) * args.cout * residual->channel : nullptr;
        for (int c = 0; c < args.cout; c += FASTVOC_WIDTH) {
          const Vec v = pooled(args, y + band * width, r, residual ? residual->channel : 0, c);
          const int present = std::min(FASTVOC_WIDTH, args.cout - c);
          if (present == FASTVOC_WIDTH) {
            store(to + c, v);
          } else {
            std::memcpy(to + c, &v, static_cast<std::size_t>(present) * sizeof(float));
          }
        }
      }
    }
  }
}

}  // namespace fastvoc::FASTVOC_ISA
