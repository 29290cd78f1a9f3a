// Two taps by pairs of steps: three products where the taps of two steps have four (Winograd 1980, F(2, 2)). With rows d of
// inputs and taps g, y = d[0] g[0] + d[1] g[1] and its neighbour d[1] g[0] + d[2] g[1] are
//
//   (d[0] - d[1]) g[0] + d[1] (g[0] + g[1])   and   d[1] (g[0] + g[1]) - (d[1] - d[2]) g[1]
//
// Either reads no row but its own, so that a pair may be cut.
#pragma once

#include "toom_cook.h"

namespace fastvoc::FASTVOC_ISA {

// Weights of a row's `depth` inputs in panels [depth][16]: those of either tap `panel` apart, those of their sum one after the other.
struct PairedFilter {
  const float* earlier;
  const float* later;
  const float* sum;
  std::ptrdiff_t panel;
  const float* bias;
  int depth;
};

// That of packed weights [panel][tap][depth][16], the sums behind them; `reversed`: the later tap comes first.
inline PairedFilter paired_filter(const Filter<float>& filter, int panels, int depth, bool reversed) {
  const std::ptrdiff_t tap = std::ptrdiff_t{depth} * kPanel;
  const float* const w = filter.weight;
  return {w + (reversed ? tap : 0), w + (reversed ? 0 : tap), w + panels * 2 * tap, 2 * tap, filter.bias, depth};
}

// Writes each row less the next one.
inline void row_differences(const float* x, std::ptrdiff_t row, int depth, std::int64_t rows, float* y) {
  const std::ptrdiff_t width = padded(depth);
  for (std::int64_t r = 0; r < rows; ++r, x += row, y += width) {
    for (std::ptrdiff_t c = 0; c < width; c += FASTVOC_WIDTH) store(y + c, load(x + c) - load(x + row + c));
  }
}

// The sums of `n` pairs lie in three blocks; `count` steps of them are written.
template <int NV>
__attribute__((noinline)) void finish_pairs(const float* sums, const float* bias, const TileOutput& given, std::int64_t count) {
  constexpr int columns = NV * kPanel;
  constexpr std::ptrdiff_t block = kToomCookChunk * columns;
  const TileOutput out = given;
  with_fate<Fate::kRaw, Fate::kBlock>(out, [&](auto fate) {
    const auto write = [&](std::int64_t t, int c, Vec y) __attribute__((always_inline)) {
      finish_vector<decltype(fate)::value>(out, Act{}, 1.0f, t, c, y + load(bias + c), WholeRow{});
    };
    for (std::int64_t t = 0; t < count; t += 2, sums += columns) {
      for (int c = 0; c < columns; c += FASTVOC_WIDTH) {
        const Vec both = load(sums + block + c);
        write(t, c, load(sums + c) + both);
        if (t + 1 < count) write(t + 1, c, both - load(sums + 2 * block + c));
      }
    }
  });
}

template <int NV>
void paired_panels(const PairedFilter& by, int panel, const float* x, std::ptrdiff_t row, const float* differences,
                   TileOutput out, std::int64_t count) {
  static constexpr float zeros[2 * kPanel] = {};
  alignas(64) float sums[3 * kToomCookChunk * NV * kPanel];
  constexpr std::ptrdiff_t block = kToomCookChunk * NV * kPanel;
  const std::ptrdiff_t width = padded(by.depth), size = std::ptrdiff_t{by.depth} * kPanel;
  const auto multiply = [&](const float* rows, std::ptrdiff_t step, const float* w, std::ptrdiff_t apart, float* y,
                            std::int64_t n) {
    product_rows<NV>(TileInput{rows, step, 0, w + panel * apart, apart, zeros, 1, by.depth}, y, n);
  };
  const std::int64_t most = 2 * toom_cook_chunk((count + 1) / 2);
  for (std::int64_t t = 0; t < count; t += most) {
    const std::int64_t steps = std::min(most, count - t), pairs = (steps + 1) / 2;
    multiply(differences + t * width, 2 * width, by.earlier, by.panel, sums, pairs);
    multiply(x + (t + 1) * row, 2 * row, by.sum, size, sums + block, pairs);
    if (steps > 1) multiply(differences + (t + 1) * width, 2 * width, by.later, by.panel, sums + 2 * block, steps / 2);
    finish_pairs<NV>(sums, by.bias + panel * kPanel, out, steps);
    out.move(steps);
  }
}

// `count` steps from an even one on of all panels; x is the row of the first one's earlier tap, rows are whole vectors wide.
// `differences` has room for as many rows.
inline void paired_rows(const PairedFilter& by, const float* x, std::ptrdiff_t row, const TileOutput& out, std::int64_t count,
                        int panels, float* differences, const Team* team) {
  share(team, count, [&](std::int64_t first, std::int64_t last, int) {
    row_differences(x + first * row, row, by.depth, last - first, differences + first * padded(by.depth));
  });
  share_panels(team, panels, [&](int first, int last, int) {
    over_panels(first, last, [&](auto number, int p) {
      paired_panels<decltype(number)::value>(by, p, x, row, differences, out.from(p), count);
    });
  });
}

}  // namespace fastvoc::FASTVOC_ISA
