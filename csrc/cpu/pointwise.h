// A pointwise layer on the register tile: rows of inputs times panels of weights, which lie in memory in the order of their
// use. Such a layer has so many weights that each is wanted a few times only, so the next panels are fetched meanwhile.
#pragma once

#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// Rows of `depth` floats, `row` apart; weights are panels [depth][16], one after the other.
struct PointwiseInput {
  const float* x;
  std::ptrdiff_t row;
  const float* w;
  const float* bias;
  int depth;
};

// `lines` cache lines from `ahead` on are fetched with every fourth input.
template <int R, int NV>
inline __attribute__((always_inline)) void accumulate(const PointwiseInput& in, const float* ahead, int lines,
                                                      Vec (&acc)[R][NV * kVecs]) {
  constexpr int groups = (R + 2) / 3;
  for (int v = 0; v < NV * kVecs; ++v) {
    const Vec b = load(in.bias + v * FASTVOC_WIDTH);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) acc[r][v] = b;
  }
  const std::ptrdiff_t row = in.row, panel = static_cast<std::ptrdiff_t>(in.depth) * kPanel;
  const float* w = in.w;
  const float* x[groups];
  for (int g = 0; g < groups; ++g) x[g] = in.x + 3 * g * row;
  const auto add = [&](int c) __attribute__((always_inline)) {
    Vec wv[NV * kVecs];
    for (int v = 0; v < NV * kVecs; ++v) wv[v] = load(w + (v / kVecs) * panel + (v % kVecs) * FASTVOC_WIDTH);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      const float xv = x[r / 3][(r % 3) * row + c];
      for (int v = 0; v < NV * kVecs; ++v) acc[r][v] += wv[v] * xv;
    }
    w += kPanel;
  };
  int c = 0;
  for (; c + 4 <= in.depth; c += 4) {
    for (int i = 0; i < lines; ++i, ahead += kPanel) __builtin_prefetch(ahead);
    add(c);
    add(c + 1);
    add(c + 2);
    add(c + 3);
  }
  for (; c < in.depth; ++c) add(c);
}

template <int R, int NV>
__attribute__((noinline)) void pointwise_tile(const PointwiseInput& in, const float* ahead, int lines,
                                              const TileOutput& out) {
  Vec acc[R][NV * kVecs];
  accumulate<R, NV>(in, ahead, lines, acc);
  finish<R, NV>(out, acc);
  if (out.act) activate_rows(*out.activation, out.act, out.act_row, R, out.channel, NV * kPanel);
}

using PointwiseFn = void (*)(const PointwiseInput&, const float* ahead, int lines, const TileOutput&);

template <int NV, int... R>
constexpr std::array<PointwiseFn, sizeof...(R) + 1> pointwise_table(std::integer_sequence<int, R...>) {
  return {nullptr, &pointwise_tile<R + 1, NV>...};
}

// Runs `rows` steps of the first one or two panels in tiles of about equal height; each fetches its share of the next ones.
template <int NV>
void pointwise_panels(PointwiseInput in, TileOutput out, std::int64_t rows) {
  constexpr int high = NV == 2 ? FASTVOC_ROWS2 : FASTVOC_ROWS1;
  static constexpr auto table = pointwise_table<NV>(std::make_integer_sequence<int, high>{});
  const std::int64_t tiles = ceil_div(rows, high);
  const int lines = static_cast<int>(ceil_div(4 * NV, tiles));
  const float* ahead = in.w + static_cast<std::ptrdiff_t>(NV) * in.depth * kPanel;
  for (std::int64_t left = tiles; left > 0; --left) {
    const std::int64_t n = ceil_div(rows, left);
    table[static_cast<std::size_t>(n)](in, ahead, lines, out);
    in.x += n * in.row;
    if (out.raw) out.raw += n * out.raw_row;
    if (out.act) out.act += n * out.act_row;
    if (out.residual) out.residual += n * out.residual_row;
    ahead += static_cast<std::ptrdiff_t>(in.depth / 4) * lines * kPanel;
    rows -= n;
  }
}

// All panels of `rows` steps; `out` may have a residual and an activation other than the leaky ReLU, but no sum.
inline void pointwise_rows(PointwiseInput in, const TileOutput& out, std::int64_t rows, int panels) {
  const std::ptrdiff_t panel = static_cast<std::ptrdiff_t>(in.depth) * kPanel;
  int p = 0;
  for (; FASTVOC_ROWS2 > 0 && p + 2 <= panels; p += 2) {
    pointwise_panels<FASTVOC_ROWS2 ? 2 : 1>(in, shifted(out, p * kPanel), rows);
    in.w += 2 * panel;
    in.bias += 2 * kPanel;
  }
  for (; p < panels; ++p) {
    pointwise_panels<1>(in, shifted(out, p * kPanel), rows);
    in.w += panel;
    in.bias += kPanel;
  }
}

}  // namespace fastvoc::FASTVOC_ISA
