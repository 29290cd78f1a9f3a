// A pointwise layer on the register tile: rows of inputs times panels of weights, which lie in memory in the order of their
// use. Such a layer has so many weights that each is wanted a few times only, so the next panels are fetched meanwhile.
#pragma once

#include "results.h"
#include "rows.h"

namespace fastvoc::FASTVOC_ISA {

// Rows of `depth` words, `row` elements apart; weights are pairs of panels [depth][2][16] of words, one after the other, and
// where their number is odd a last one [depth][16]. From one word's weights to the next one's it is `step` words.
template <class Element>
struct PointwiseInput {
  const Element* x;
  std::ptrdiff_t row;
  const Element* w;
  const float* bias;
  int depth;
  int step = 2 * kPanel;
};

// Of a single tile the panels' own lines are fetched so many ahead: 16 KB, which is what it takes to read as fast as memory can.
constexpr int kNearLines = 256;

// Inputs in a row without a jump: more would need more registers than there are, 10 % slower with sixteen of them.
constexpr int kUnrolledInputs = FASTVOC_WIDTH == 16 ? 4 : 2;

// The results of R rows and NV panels, to rows that lie close together. With every fourth word `lines` cache lines from `ahead` on
// are fetched, or without `ahead` the panels' own lines: into the L2, as a pair of panels is more than the L1 holds.
template <int R, int NV, class Element>
__attribute__((noinline)) void pointwise_tile(const PointwiseInput<Element>& in, const Element* ahead, int lines, float* rows) {
  using D = Dot<Element>;
  constexpr int vecs = NV * kVecs, lanes = Numbers<Element>::kGroup, line = kPanel * lanes;
  Vec acc[R][vecs];
  begin_sums(acc, [&](int v) __attribute__((always_inline)) { return load(in.bias + v * FASTVOC_WIDTH); });
  const std::ptrdiff_t step = in.step * lanes;
  const Element* w = in.w;
  const WordRows<R, D> x(in.x, in.row / lanes);
  const auto add = [&](int c) __attribute__((always_inline)) {
    typename D::Weights wv[vecs];
#pragma GCC unroll 8
    for (int v = 0; v < vecs; ++v) wv[v] = D::load_weights(w + v * FASTVOC_WIDTH * lanes);
    add_products(acc, wv, x, c);
    w += step;
  };
  int c = 0;
  for (; c + 4 <= in.depth; c += 4) {
    if (ahead) {
      for (int i = 0; i < lines; ++i, ahead += line) __builtin_prefetch(ahead, 0, 2);
    } else {
      for (int i = 0; i < 4 * NV; ++i) __builtin_prefetch(w + (kNearLines + i) * line, 0, 2);
    }
#pragma GCC unroll kUnrolledInputs
    for (int i = 0; i < 4; ++i) add(c + i);
  }
  for (; c < in.depth; ++c) add(c);
  store_sums(rows, NV * kPanel, acc);
}

// Runs `rows` steps of the first NV panels; each tile fetches its share of the lines from `ahead` on. A single one, and the first
// where nobody has fetched the panels (`cold`), fetches what it needs itself soon.
template <int NV, class Element, class Out>
void pointwise_panels(PointwiseInput<Element> in, const Element* ahead, bool cold, Out out, std::int64_t rows) {
  static constexpr auto table = by_height<kEvery<NV>>([]<int R>() { return &pointwise_tile<R, NV, Element>; });
  alignas(64) float results[kEvery<NV> * NV * kPanel];
  const std::int64_t tiles = ceil_div(rows, kEvery<NV>);
  const int lines = static_cast<int>(ceil_div(4 * NV, tiles));
  bool near = in.step == NV * kPanel && (cold || tiles == 1);
  over_tiles(table, rows, [&](auto tile, std::int64_t n) {
    tile(in, near ? nullptr : ahead, lines, results);
    finish_any(out, results, static_cast<int>(n), NV * kPanel);
    in.x += n * in.row;
    out.move(n);
    ahead += static_cast<std::ptrdiff_t>(in.depth / 4) * lines * kPanel * Numbers<Element>::kGroup;
    near = false;
  });
}

// All panels of `rows` steps, the first of a pair.
template <class Element, class Out>
void pointwise_rows(PointwiseInput<Element> in, const Out& out, std::int64_t rows, int panels) {
  const std::ptrdiff_t panel = static_cast<std::ptrdiff_t>(in.depth) * kPanel * Numbers<Element>::kGroup;
  int p = 0;
  for (; p + 2 <= panels; p += 2) {
    const Element* ahead = in.w + 2 * panel;
    if constexpr (FASTVOC_ROWS2 > 0) {
      pointwise_panels<FASTVOC_ROWS2 ? 2 : 1>(in, ahead, p == 0, out.from(p), rows);
    } else {
      PointwiseInput<Element> second = in;
      second.w += kPanel * Numbers<Element>::kGroup;
      second.bias += kPanel;
      pointwise_panels<1>(in, ahead, false, out.from(p), rows);
      pointwise_panels<1>(second, ahead + panel, false, out.from(p + 1), rows);
    }
    in.w += 2 * panel;
    in.bias += 2 * kPanel;
  }
  in.step = kPanel;
  if (p < panels) pointwise_panels<1>(in, in.w + panel, p == 0, out.from(p), rows);
}

}  // namespace fastvoc::FASTVOC_ISA
