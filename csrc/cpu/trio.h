// A linear layer of trios on few rows: y = act(x * weight * scale + bias + residual), pair of panels by pair of panels.
#pragma once

#include "lanes.h"
#include "results.h"
#include "rows.h"
#include "trio_args.h"

namespace fastvoc::FASTVOC_ISA {

// Rows of `depth` floats, `row` apart, and the words of a pair of panels. Those up to `end` follow, then the ones from `next` on.
struct TrioInput {
  const float* x;
  std::ptrdiff_t row;
  const std::uint32_t* words;
  const std::uint32_t* end;
  const std::uint32_t* next;
  const float* scale;
  const float* bias;
  int depth;
};

inline __attribute__((always_inline)) WordVec trio_word(const std::uint32_t* p) {
  WordVec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline __attribute__((always_inline)) Vec upper(WordVec word) { return __builtin_convertvector((IntVec)word, Vec); }

inline __attribute__((always_inline)) Vec lower(WordVec first, WordVec second) {
  return upper((first << 21) | ((second << 10) & (2047u << 10)));
}

// Of a single tile each group's lines are fetched so many groups ahead, 16 KB.
constexpr int kNearGroups = 64;

// The results of R rows for the first NV panels of the pair. With every group `lines` cache lines from `ahead` on are fetched,
// or without `ahead` all lines of the group that is read kNearGroups later.
template <int R, int NV>
__attribute__((noinline)) void trio_tile(const TrioInput& in, const std::uint32_t* ahead, int lines, float* rows) {
  constexpr int vecs = NV * kVecs;
  Vec acc[R][vecs];
  begin_sums(acc, [&](int) __attribute__((always_inline)) { return Vec{}; });
  const WordRows<R, Dot<float>> x(in.x, in.row);
  const std::uint32_t* w = in.words;
  const auto group = [&](int c, int inputs) __attribute__((always_inline)) {
    Vec first[vecs], second[vecs], third[vecs];
#pragma GCC unroll 8
    for (int v = 0; v < vecs; ++v) {
      const std::uint32_t* const at = w + v / kVecs * 2 * kPanel + v % kVecs * FASTVOC_WIDTH;
      const WordVec one = trio_word(at), two = trio_word(at + kPanel);
      first[v] = upper(one);
      second[v] = lower(one, two);
      third[v] = upper(two);
    }
    add_products(acc, first, x, c);
    if (inputs > 1) add_products(acc, second, x, c + 1);
    if (inputs > 2) add_products(acc, third, x, c + 2);
    w += kTrioWords;
  };
  const int groups = in.depth / 3;
  const bool near = !ahead;
  for (int begin = 0; begin < groups; begin += kNearGroups) {
    if (near) {
      ahead = w + kNearGroups * kTrioWords;
      if (ahead >= in.end) ahead = in.next + (ahead - in.end);
    }
    const int end = std::min(begin + kNearGroups, groups);
    for (int g = begin; g < end; ++g) {
      if (near) {
        for (int i = 0; i < 4; ++i) __builtin_prefetch(ahead + i * kPanel);
        ahead += kTrioWords;
      } else {
        for (int i = 0; i < lines; ++i, ahead += kPanel) __builtin_prefetch(ahead);
      }
      group(3 * g, 3);
    }
  }
  if (in.depth > 3 * groups) group(3 * groups, in.depth - 3 * groups);
#pragma GCC unroll 8
  for (int v = 0; v < vecs; ++v) {
    const Vec scale = load(in.scale + v * FASTVOC_WIDTH), bias = load(in.bias + v * FASTVOC_WIDTH);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) acc[r][v] = acc[r][v] * scale + bias;
  }
  store_sums(rows, NV * kPanel, acc);
}

// Runs `rows` steps of NV panels. A single tile fetches what it needs itself soon, several of them fetch the next pair together.
template <int NV>
void trio_panels(TrioInput in, TileOutput out, std::int64_t rows) {
  static constexpr auto table = by_height<kEvery<NV>>([]<int R>() { return &trio_tile<R, NV>; });
  alignas(64) float results[kEvery<NV> * NV * kPanel];
  const std::int64_t tiles = ceil_div(rows, kEvery<NV>), pair = trio_pair_words(in.depth);
  const int lines = static_cast<int>(ceil_div(4, tiles));
  const std::uint32_t* ahead = in.words + pair < in.end ? in.words + pair : in.next;
  over_tiles(table, rows, [&](auto tile, std::int64_t n) {
    tile(in, tiles == 1 ? nullptr : ahead, lines, results);
    finish_any(out, results, static_cast<int>(n), NV * kPanel);
    in.x += n * in.row;
    out.move(n);
    ahead += pair / 4 * lines;
  });
}

// The pairs of panels [first, last) of a layer; `next` are the words that the same thread reads after those.
inline void trio_rows(const Trios& layer, const float* x, std::ptrdiff_t row, const TileOutput& out, std::int64_t rows,
                      std::int64_t first, std::int64_t last, const std::uint32_t* next) {
  if (rows == 0) return;
  const int panels = padded(layer.outputs) / kPanel;
  for (std::int64_t pair = first; pair < last; ++pair) {
    const int begin = static_cast<int>(2 * pair), end = std::min(begin + 2, panels);
    over_panels(begin, end, [&](auto number, int p) {
      const TrioInput in{x, row, layer.pair(pair) + 2 * (p - begin) * kPanel, layer.pair(last), next, layer.scale + p * kPanel,
                         layer.bias + p * kPanel, layer.inputs};
      trio_panels<decltype(number)::value>(in, out.from(p), rows);
    });
  }
}

}  // namespace fastvoc::FASTVOC_ISA
