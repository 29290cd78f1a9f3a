// Convolution by Toom-Cook: tiles of inputs are transformed once, each point is a small convolution over tiles with the
// register tiles of tile.h, and the sums are transformed back (Winograd 1980; Lavin & Gray 2015, arXiv 1509.09308).
//
// With points a and values d at the steps of a tile, the input transform is d times the coefficients of prod(x - b) over
// the other points b, and the output transform is y_j = sum_a a^j m_a, with m at infinity added to the last.
#pragma once

#include "tile.h"
#include "toom_cook_args.h"

namespace fastvoc::FASTVOC_ISA {

// x[q] from d[0..]; the point at infinity only with kInfinity, which alone reads the last d.
template <Scheme kScheme, bool kInfinity>
inline __attribute__((always_inline)) void transform_input(const Vec* d, Vec* x) {
  if constexpr (kScheme == Scheme::kF33) {  // 0, 1, -1, 2, infinity
    const Vec high = d[3] - d[1], low = d[2] - d[0];
    x[0] = high - 2.0f * low;
    x[1] = (d[3] - d[2]) - 2.0f * d[1];
    x[2] = (d[3] - d[2]) - 2.0f * (d[2] - d[1]);
    x[3] = high;
    if constexpr (kInfinity) x[4] = (d[4] - d[2]) - 2.0f * high;
  } else if constexpr (kScheme == Scheme::kF44) {  // 0, 1, -1, 2, -2, 1/2, infinity; x - 1/2 is taken out of the others
    const Vec e0 = d[1] - 0.5f * d[0], e1 = d[2] - 0.5f * d[1], e2 = d[3] - 0.5f * d[2], e3 = d[4] - 0.5f * d[3],
              e4 = d[5] - 0.5f * d[4];
    x[0] = e4 - 5.0f * e2 + 4.0f * e0;
    const Vec even1 = e4 - 4.0f * e2, odd1 = e3 - 4.0f * e1;
    x[1] = even1 + odd1;
    x[2] = even1 - odd1;
    const Vec even2 = e4 - e2, odd2 = e3 - e1;
    x[3] = even2 + 2.0f * odd2;
    x[4] = even2 - 2.0f * odd2;
    x[5] = d[5] - 5.0f * d[3] + 4.0f * d[1];
    if constexpr (kInfinity) x[6] = d[6] - 0.5f * d[5] - 5.0f * e3 + 4.0f * e1;
  } else {  // 0, 1, -1, 2, -2, 1/2, -1/2, infinity
    x[0] = d[6] - d[0] + 5.25f * (d[2] - d[4]);
    const Vec even1 = d[6] + d[2] - 4.25f * d[4], odd1 = d[5] + d[1] - 4.25f * d[3];
    x[1] = even1 + odd1;
    x[2] = even1 - odd1;
    const Vec even2 = d[6] - 1.25f * d[4] + 0.25f * d[2], odd2 = d[5] - 1.25f * d[3] + 0.25f * d[1];
    x[3] = even2 + 2.0f * odd2;
    x[4] = even2 - 2.0f * odd2;
    const Vec even3 = d[6] - 5.0f * d[4] + 4.0f * d[2], odd3 = d[5] - 5.0f * d[3] + 4.0f * d[1];
    x[5] = even3 + 0.5f * odd3;
    x[6] = even3 - 0.5f * odd3;
    if constexpr (kInfinity) x[7] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
  }
}

template <Scheme kScheme>
inline __attribute__((always_inline)) void transform_output(const Vec* m, Vec* y) {
  const Vec sum1 = m[1] + m[2], difference1 = m[1] - m[2];
  if constexpr (kScheme == Scheme::kF33) {
    y[0] = m[0] + sum1 + m[3];
    y[1] = difference1 + 2.0f * m[3];
    y[2] = sum1 + 4.0f * m[3] + m[4];
    return;
  }
  const Vec sum2 = m[3] + m[4], difference2 = m[3] - m[4];
  if constexpr (kScheme == Scheme::kF44) {
    y[0] = m[0] + sum1 + sum2 + m[5];
    y[1] = difference1 + 2.0f * difference2 + 0.5f * m[5];
    y[2] = sum1 + 4.0f * sum2 + 0.25f * m[5];
    y[3] = difference1 + 8.0f * difference2 + 0.125f * m[5] + m[6];
  } else {
    const Vec sum3 = m[5] + m[6], difference3 = m[5] - m[6];
    y[0] = m[0] + sum1 + sum2 + sum3;
    y[1] = difference1 + 2.0f * difference2 + 0.5f * difference3;
    y[2] = sum1 + 4.0f * sum2 + 0.25f * sum3;
    y[3] = difference1 + 8.0f * difference2 + 0.125f * difference3;
    if constexpr (kScheme == Scheme::kF45) {
      y[3] += m[7];
    } else {
      y[4] = sum1 + 16.0f * sum2 + 0.0625f * sum3;
      y[5] = difference1 + 32.0f * difference2 + 0.03125f * difference3 + m[7];
    }
  }
}

// Transforms `rows` rows of `width` channels; a tile's steps lie `step` apart, its points `point` apart.
template <Scheme kScheme, bool kInfinity, class Element>
void transform_rows(const Element* in, std::ptrdiff_t step, Element* out, std::ptrdiff_t point, std::int64_t rows,
                    int width) {
  constexpr int points = scheme_points(kScheme), used = kInfinity ? points : points - 1;
  for (std::int64_t i = 0; i < rows * width; i += FASTVOC_WIDTH) {
    Vec d[points], x[points];
#pragma GCC unroll 8
    for (int j = 0; j < used; ++j) d[j] = load(in + i + j * step);
    transform_input<kScheme, kInfinity>(d, x);
#pragma GCC unroll 8
    for (int q = 0; q < used; ++q) store(out + i + q * point, x[q]);
  }
}

// The outputs of one tile, of which the first `count` are written: `step` steps lie between them.
template <Scheme kScheme, int NV, Fate fate = Fate::kAny, class Element>
inline __attribute__((always_inline)) void finish_tile(const float* m, std::ptrdiff_t point, const float* bias,
                                                       const TileOutputOf<Element>& out, std::int64_t t, int step,
                                                       int count, float slope) {
  constexpr int tile = scheme_tile(kScheme), points = scheme_points(kScheme);
  const Act activation = out.act ? *out.activation : Act{};
  for (int v = 0; v < NV * kVecs; ++v) {
    const std::ptrdiff_t c = v * FASTVOC_WIDTH;
    Vec sums[points], y[tile];
#pragma GCC unroll 8
    for (int q = 0; q < points; ++q) sums[q] = load(m + q * point + c);
    transform_output<kScheme>(sums, y);
    const Vec b = load(bias + c);
#pragma GCC unroll 8
    for (int j = 0; j < tile; ++j) {
      if (j >= count) break;
      const std::ptrdiff_t at = t + static_cast<std::ptrdiff_t>(j) * step;
      finish_vector<fate>(out, activation, slope, at, c, y[j] + b, WholeRow{});
    }
  }
}

// Those of a tile that the end of the signal cuts: one function for all fates.
template <Scheme kScheme, int NV, class Element>
__attribute__((noinline)) void finish_cut(const float* m, std::ptrdiff_t point, const float* bias,
                                          const TileOutputOf<Element>& out, std::int64_t t, int step, int count, float slope) {
  finish_tile<kScheme, NV>(m, point, bias, out, t, step, count, slope);
}

// The outputs of one tile where another activation than a leaky ReLU precedes their rounding.
template <Scheme kScheme, int NV, class Element>
inline __attribute__((always_inline)) void finish_curved(const float* m, std::ptrdiff_t point, const float* bias,
                                                         const TileOutputOf<Element>& out, std::int64_t t, int step,
                                                         int count) {
  constexpr int tile = scheme_tile(kScheme), columns = NV * kPanel;
  alignas(64) float rows[tile * columns];
  const auto at = [&](auto* p, std::ptrdiff_t row) { return p ? p + t * row : nullptr; };
  const TileOutput floats{at(out.raw, out.raw_row), rows, at(out.residual, out.residual_row), at(out.sum, out.sum_row),
                          step * out.raw_row, columns, step * out.residual_row, step * out.sum_row,
                          out.activation, out.channel, out.scale};
  finish_tile<kScheme, NV>(m, point, bias, floats, 0, 1, count, 1.0f);
  TileOutputOf<Element> rounded = out;
  rounded.act += t * out.act_row;
  rounded.act_row *= step;
  activate_to(rounded, rows, count, columns);
}

template <Scheme kScheme, int NV, Fate fate, class Element>
inline __attribute__((always_inline)) void finish_steps(const float* m, std::ptrdiff_t point, const float* bias,
                                                        const TileOutputOf<Element>& out, std::int64_t t, int step,
                                                        int count, float slope) {
  constexpr int tile = scheme_tile(kScheme);
  if constexpr (!std::is_same_v<Element, float> && fate == Fate::kAny) {
    if (out.curved()) return finish_curved<kScheme, NV>(m, point, bias, out, t, step, count);
  }
  if (count == tile) return finish_tile<kScheme, NV, fate>(m, point, bias, out, t, step, tile, slope);
  finish_cut<kScheme, NV>(m, point, bias, out, t, step, count, slope);
}

// A convolution on its way: `x` is its transformed input [point][row][width]. Weights are [point][panel][group][cin][16].
template <class Element>
struct ToomCookRun {
  const ToomCook& conv;
  const Element* weight;
  const float* bias;
  int cin;
  int width;
  const Element* x;
  std::ptrdiff_t point;
  std::int64_t count;  // output steps
  float* sums;
};

// Writes the outputs of the `n` rows of sums from row `first` on.
template <Scheme kScheme, int NV, Fate fate, class Element>
inline __attribute__((always_inline)) void finish_chunk(const ToomCookRun<Element>& run, int panel,
                                                        const TileOutputOf<Element>& given, std::int64_t first,
                                                        std::int64_t n) {
  constexpr int tile = scheme_tile(kScheme), columns = NV * kPanel;
  constexpr std::ptrdiff_t sums_point = kToomCookChunk * columns;
  const TileOutputOf<Element> out = given;
  const float slope = out.act ? out.activation->leak() : 1.0f;
  const float* bias = run.bias + panel * kPanel;
  const int d = run.conv.dilation;
  std::int64_t block = first / d;
  int phase = static_cast<int>(first % d);
  for (std::int64_t row = 0; row < n; ++row) {
    const std::int64_t t = block * tile * d + phase;
    const int made = static_cast<int>(std::clamp<std::int64_t>(ceil_div(run.count - t, d), 0, tile));
    const float* m = run.sums + row * columns;
    if (made > 0) finish_steps<kScheme, NV, fate>(m, sums_point, bias, out, t, d, made, slope);
    if (++phase == d) {
      phase = 0;
      ++block;
    }
  }
}

// NV panels of the rows [first, end), from panel `panel` on.
template <Scheme kScheme, int NV, class Element>
void toom_cook_panels(const ToomCookRun<Element>& run, int panel, const TileOutputOf<Element>& out, std::int64_t first,
                      std::int64_t end) {
  static constexpr float zeros[2 * kPanel] = {};
  constexpr int points = scheme_points(kScheme);
  constexpr std::ptrdiff_t sums_point = kToomCookChunk * NV * kPanel;
  const int d = run.conv.dilation;
  const std::int64_t chunk = toom_cook_chunk(end - first);
  for (; first < end; first += chunk) {
    const std::int64_t n = std::min(chunk, end - first);
    const Element* w = run.weight;
    for (int q = 0; q < points; ++q) {
      const int taps = q + 1 < points ? run.conv.groups() : run.conv.groups_at_infinity();
      const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(taps) * grouped<Element>(run.cin) * kPanel;
      const TileInputOf<Element> in{run.x + q * run.point + first * run.width,
                                    run.width,
                                    static_cast<std::ptrdiff_t>(d) * run.width,
                                    w + panel * size,
                                    size,
                                    zeros,
                                    taps,
                                    run.cin};
      // The next point's weights lie elsewhere: few rows would wait for the first of them.
      if (n <= kAwaitedRows + 1 && q + 1 < points) {
        const std::ptrdiff_t taken = q + 2 < points ? run.conv.groups() : run.conv.groups_at_infinity();
        const std::ptrdiff_t next = taken * grouped<Element>(run.cin) * kPanel;
        const Element* first_lines = w + run.width / kPanel * size + panel * next;
        for (int line = 0; line < NV * kAwaitedLines; ++line) {
          __builtin_prefetch(first_lines + line % NV * next + line / NV * kPanel * Numbers<Element>::kGroup, 0, 2);
        }
      }
      product_rows<NV>(in, run.sums + q * sums_point, n);
      w += run.width / kPanel * size;
    }
    with_known_fate(out, [&](auto fate) { finish_chunk<kScheme, NV, decltype(fate)::value>(run, panel, out, first, n); });
  }
}

// The panels [panel, last) of the rows [first, end).
template <Scheme kScheme, class Element>
void toom_cook_range(const ToomCookRun<Element>& run, int panel, int last, const TileOutputOf<Element>& out,
                     std::int64_t first, std::int64_t end) {
  over_panels(panel, last, [&](auto number, int p) {
    toom_cook_panels<kScheme, decltype(number)::value>(run, p, out.from(p), first, end);
  });
}

template <Scheme kScheme, class Element>
void toom_cook(const ToomCook& conv, const Filter<Element>& filter, int cin, const Element* in, int width,
               const TileOutputOf<Element>& out, std::int64_t count, float* scratch, const Team* team) {
  constexpr int tile = scheme_tile(kScheme);
  const std::ptrdiff_t d = conv.dilation;
  const std::int64_t blocks = ceil_div(count, conv.block()), all = blocks + conv.groups() - 1;
  const std::ptrdiff_t point = all * d * width;
  Element* const x = reinterpret_cast<Element*>(scratch);
  const auto transform = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const Element* from = in + b * tile * d * width;
      Element* to = x + b * d * width;
      if (b < blocks + conv.groups_at_infinity() - 1) {
        transform_rows<kScheme, true>(from, d * width, to, point, d, width);
      } else {
        transform_rows<kScheme, false>(from, d * width, to, point, d, width);
      }
    }
  };
  const std::int64_t rows = blocks * d;
  float* const sums = scratch + toom_cook_points(conv, width, count);
  ToomCookRun<Element> run{conv, filter.weight, filter.bias, cin, width, x, point, count, sums};
  if (!team && width <= kToomCookNear) {
    std::int64_t made = 0;
    const std::int64_t chunk = toom_cook_chunk(rows);
    for (std::int64_t first = 0; first < rows; first += chunk) {
      const std::int64_t last = std::min(first + chunk, rows);
      const std::int64_t wanted = std::min(ceil_div(last, d) + conv.groups() - 1, all);
      transform(made, wanted);
      made = wanted;
      toom_cook_range<kScheme>(run, 0, width / kPanel, out, first, last);
    }
  } else {
    share(team, all, [&](std::int64_t begin, std::int64_t end, int) { transform(begin, end); });
    share_panels(team, width / kPanel, [&](int first, int last, int part) {
      ToomCookRun<Element> mine = run;
      mine.sums += part * toom_cook_sums(conv);
      toom_cook_range<kScheme>(mine, first, last, out, 0, rows);
    });
  }
  if constexpr (std::is_same_v<Element, float>) {
    if (out.curved()) {
      share_panels(team, width / kPanel, [&](int first, int last, int) {
        const TileOutputOf<Element> part = out.from(first);
        activate_rows(*part.activation, part.act, part.act_row, count, part.channel, (last - first) * kPanel);
      });
    }
  }
}

// `count` output steps from the first of a tile on, all channels; `in` is the row of the first tap of the first, `scratch` what
// toom_cook_floats() counts.
template <class Element>
void toom_cook_rows(const ToomCook& conv, const Filter<Element>& filter, int cin, const Element* in, int width,
                    const TileOutputOf<Element>& out, std::int64_t count, float* scratch, const Team* team) {
  constexpr Scheme own = std::is_same_v<Element, Bf16> ? Scheme::kF33 : Scheme::kF63;
  switch (conv.scheme) {
    case own:
      return toom_cook<own>(conv, filter, cin, in, width, out, count, scratch, team);
    case Scheme::kF45:
      return toom_cook<Scheme::kF45>(conv, filter, cin, in, width, out, count, scratch, team);
    case Scheme::kF44:
      return toom_cook<Scheme::kF44>(conv, filter, cin, in, width, out, count, scratch, team);
    default:
      return;
  }
}

}  // namespace fastvoc::FASTVOC_ISA
