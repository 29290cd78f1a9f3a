// A pointwise layer on the register tile: rows of inputs times panels of weights, which lie in memory in the order of their
// use. Such a layer has so many weights that each is wanted a few times only, so the next panels are fetched meanwhile.
#pragma once

#include "bf16.h"
#include "tile.h"

namespace fastvoc::FASTVOC_ISA {

// What one multiplication takes: a float, or a pair of bfloat16 numbers.
template <class Element>
struct WordOf {
  using type = float;
};
template <>
struct WordOf<Bf16> {
  using type = Pair;
};

inline __attribute__((always_inline)) Vec load_words(const float* p) { return load(p); }
inline __attribute__((always_inline)) PairVec load_words(const Pair* p) { return load_pairs(p); }
inline __attribute__((always_inline)) Vec add_product(Vec sum, Vec w, float x) { return sum + w * x; }
inline __attribute__((always_inline)) Vec add_product(Vec sum, PairVec w, Pair x) { return dot_pairs(sum, w, x); }

// Rows of `depth` words, `row` apart; weights are pairs of panels [depth][2][16], one after the other, and where their number
// is odd a last one [depth][16]. From one input's weights to the next one's it is `step` words.
template <class Word>
struct PointwiseInput {
  const Word* x;
  std::ptrdiff_t row;
  const Word* w;
  const float* bias;
  int depth;
  int step = 2 * kPanel;
};

// Of a single tile the panels' own lines are fetched so many ahead: 16 KB, which is what it takes to read as fast as memory can.
constexpr int kNearLines = 256;

// Inputs in a row without a jump: more would need more registers than there are, 10 % slower with sixteen of them.
constexpr int kUnrolledInputs = FASTVOC_WIDTH == 16 ? 4 : 2;

// With every fourth input `lines` cache lines from `ahead` on are fetched, or without `ahead` the panels' own lines.
template <int R, int NV, class Word>
inline __attribute__((always_inline)) void accumulate(const PointwiseInput<Word>& in, const Word* ahead, int lines,
                                                      Vec (&acc)[R][NV * kVecs]) {
  constexpr int groups = (R + 2) / 3;
#pragma GCC unroll 8
  for (int v = 0; v < NV * kVecs; ++v) {
    const Vec b = load(in.bias + v * FASTVOC_WIDTH);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) acc[r][v] = b;
  }
  const std::ptrdiff_t row = in.row, step = in.step;
  const Word* w = in.w;
  const Word* x[groups];
#pragma GCC unroll 8
  for (int g = 0; g < groups; ++g) x[g] = in.x + 3 * g * row;
  const auto add = [&](int c) __attribute__((always_inline)) {
    decltype(load_words(w)) wv[NV * kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < NV * kVecs; ++v) wv[v] = load_words(w + v * FASTVOC_WIDTH);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      const Word xv = x[r / 3][(r % 3) * row + c];
#pragma GCC unroll 8
      for (int v = 0; v < NV * kVecs; ++v) acc[r][v] = add_product(acc[r][v], wv[v], xv);
    }
    w += step;
  };
  int c = 0;
  for (; c + 4 <= in.depth; c += 4) {
    if (ahead) {
      for (int i = 0; i < lines; ++i, ahead += kPanel) __builtin_prefetch(ahead);
    } else {
      for (int i = 0; i < 4 * NV; ++i) __builtin_prefetch(w + (kNearLines + i) * kPanel);
    }
#pragma GCC unroll kUnrolledInputs
    for (int i = 0; i < 4; ++i) add(c + i);
  }
  for (; c < in.depth; ++c) add(c);
}

// Finishes `count` rows of `columns` results.
inline void finish_pointwise(const TileOutput& out, float* rows, int count, int columns) {
  finish_any(out, rows, count, columns);
}

// y = act(acc + bias), rounded.
struct RoundedOutput {
  Bf16* y;
  std::ptrdiff_t row;
  const Act* act;
  std::ptrdiff_t channel;
};

inline __attribute__((noinline)) void finish_pointwise(const RoundedOutput& out, float* rows, int count, int columns) {
  activate_rows(*out.act, rows, columns, count, out.channel, columns);
  for (int r = 0; r < count; ++r) narrow_row(rows + r * columns, out.y + r * out.row, columns);
}

inline TileOutput moved(TileOutput out, std::ptrdiff_t rows, std::ptrdiff_t columns) {
  if (out.raw) out.raw += rows * out.raw_row + columns;
  if (out.act) out.act += rows * out.act_row + columns;
  if (out.residual) out.residual += rows * out.residual_row + columns;
  out.channel += columns;
  return out;
}

inline RoundedOutput moved(RoundedOutput out, std::ptrdiff_t rows, std::ptrdiff_t columns) {
  return {out.y + rows * out.row + columns, out.row, out.act, out.channel + columns};
}

// The results of R rows and NV panels, to rows that lie close together.
template <int R, int NV, class Word>
__attribute__((noinline)) void pointwise_tile(const PointwiseInput<Word>& in, const Word* ahead, int lines, float* rows) {
  Vec acc[R][NV * kVecs];
  accumulate<R, NV>(in, ahead, lines, acc);
  store_tile<R, NV>(rows, acc);
}

template <class Word>
using PointwiseFn = void (*)(const PointwiseInput<Word>&, const Word* ahead, int lines, float* rows);

template <int NV, class Word, int... R>
constexpr std::array<PointwiseFn<Word>, sizeof...(R) + 1> pointwise_table(std::integer_sequence<int, R...>) {
  return {nullptr, &pointwise_tile<R + 1, NV, Word>...};
}

// Runs `rows` steps of the first NV panels in tiles of about equal height; each fetches its share of the lines from `ahead` on.
// A single one, and the first where nobody has fetched the panels (`cold`), fetches what it needs itself soon.
template <int NV, class Word, class Out>
void pointwise_panels(PointwiseInput<Word> in, const Word* ahead, bool cold, Out out, std::int64_t rows) {
  constexpr int high = NV == 2 ? FASTVOC_ROWS2 : FASTVOC_ROWS1;
  static constexpr auto table = pointwise_table<NV, Word>(std::make_integer_sequence<int, high>{});
  alignas(64) float results[high * NV * kPanel];
  const std::int64_t tiles = ceil_div(rows, high);
  const int lines = static_cast<int>(ceil_div(4 * NV, tiles));
  bool near = in.step == NV * kPanel && (cold || tiles == 1);
  for (std::int64_t left = tiles; left > 0; --left) {
    const std::int64_t n = ceil_div(rows, left);
    table[static_cast<std::size_t>(n)](in, near ? nullptr : ahead, lines, results);
    finish_pointwise(out, results, static_cast<int>(n), NV * kPanel);
    in.x += n * in.row;
    out = moved(out, n, 0);
    ahead += static_cast<std::ptrdiff_t>(in.depth / 4) * lines * kPanel;
    rows -= n;
    near = false;
  }
}

// All panels of `rows` steps, the first of a pair; a TileOutput may have a residual and an activation other than the leaky ReLU,
// but no sum.
template <class Word, class Out>
void pointwise_rows(PointwiseInput<Word> in, const Out& out, std::int64_t rows, int panels) {
  const std::ptrdiff_t panel = static_cast<std::ptrdiff_t>(in.depth) * kPanel;
  int p = 0;
  for (; p + 2 <= panels; p += 2) {
    const Word* ahead = in.w + 2 * panel;
    if constexpr (FASTVOC_ROWS2 > 0) {
      pointwise_panels<FASTVOC_ROWS2 ? 2 : 1>(in, ahead, p == 0, moved(out, 0, p * kPanel), rows);
    } else {
      PointwiseInput<Word> second = in;
      second.w += kPanel;
      second.bias += kPanel;
      pointwise_panels<1>(in, ahead, false, moved(out, 0, p * kPanel), rows);
      pointwise_panels<1>(second, ahead + panel, false, moved(out, 0, (p + 1) * kPanel), rows);
    }
    in.w += 2 * panel;
    in.bias += 2 * kPanel;
  }
  in.step = kPanel;
  if (p < panels) pointwise_panels<1>(in, in.w + panel, p == 0, moved(out, 0, p * kPanel), rows);
}

}  // namespace fastvoc::FASTVOC_ISA
