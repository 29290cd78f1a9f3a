// adain: the moments of each channel block by block, then normalisation, style and activation in one pass.
#pragma once

#include "adain_args.h"
#include "group_norm_act.h"

namespace fastvoc::FASTVOC_ISA {

// The moments of N vectors of channels over `steps` rows: the mean of plain sums, then the distances from it, whose own mean
// `off` corrects it and is kept apart, since a float of both would be too coarse beside a small deviation.
template <int N, class Element>
inline __attribute__((always_inline)) void column_moments(const Element* x, std::ptrdiff_t row, std::int64_t steps,
                                                          const AdaInMoments& out, int c) {
  const float part = 1.0f / static_cast<float>(steps);
  Vec sum[N] = {}, off[N] = {}, square[N] = {};
  const Element* at = x;
  for (std::int64_t t = 0; t < steps; ++t, at += row) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[n] += load(at + n * FASTVOC_WIDTH);
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) sum[n] *= part;
  at = x;
  for (std::int64_t t = 0; t < steps; ++t, at += row) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const Vec d = load(at + n * FASTVOC_WIDTH) - sum[n];
      off[n] += d;
      square[n] += d * d;
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
    store(out.mean + c + n * FASTVOC_WIDTH, sum[n]);
    store(out.off + c + n * FASTVOC_WIDTH, off[n] * part);
    store(out.squares + c + n * FASTVOC_WIDTH, square[n] - off[n] * off[n] * part);
  }
}

// The moments of each channel over the steps [begin, end).
template <class Element>
void adain_moments(const AdaInArgs& args, const SourceOf<Element>& source, std::int64_t begin, std::int64_t end,
                   const AdaInMoments& out, float* workspace) {
  const Rows<Element> rows = rows_of(source, begin, end, reinterpret_cast<Element*>(workspace));
  const int columns = static_cast<int>(ceil_div(args.channels, FASTVOC_WIDTH)) * FASTVOC_WIDTH;
  int c = 0;
  for (; c + 4 * FASTVOC_WIDTH <= columns; c += 4 * FASTVOC_WIDTH) {
    column_moments<4>(rows.data + c, rows.row, end - begin, out, c);
  }
  for (; c < columns; c += FASTVOC_WIDTH) column_moments<1>(rows.data + c, rows.row, end - begin, out, c);
}

// The op's steps [begin, end).
template <class Element>
void adain(const AdaInArgs& args, const AdaInItem& item, const SourceOf<Element>& source, const SinkOf<Element>& sink,
           std::int64_t begin, std::int64_t end, float* workspace) {
  const int width = padded(args.channels);
  const int columns = static_cast<int>(ceil_div(args.channels, FASTVOC_WIDTH)) * FASTVOC_WIDTH;
  const bool direct = args.channels % FASTVOC_WIDTH == 0;
  const std::int64_t strip = moment_steps(args);
  Element* space = reinterpret_cast<Element*>(workspace);
  for (std::int64_t t = begin; t < end; t += strip) {
    const std::int64_t count = std::min(strip, end - t);
    const Rows<Element> x = rows_of(source, t, t + count, space);
    Element* y = direct ? sink.data + t * sink.channels : space + strip * width;
    const std::ptrdiff_t y_row = direct ? sink.channels : width;
    with_function(args.act, [&](auto f) {
      const Element* from = x.data;
      Element* to = y;
      for (std::int64_t i = 0; i < count; ++i, from += x.row, to += y_row) {
        for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
          const Vec away = (load(from + c) - load(item.high + c)) - load(item.low + c);
          store(to + c, f(away * load(item.scale + c) + load(item.shift + c), c));
        }
      }
    });
    if (!direct) copy_rows(sink, t, y, count, width);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
