// A linear layer of trios on few rows: y = act(x * weight * scale + bias + residual), pair of panels by pair of panels.
#pragma once

#include "lanes.h"
#include "pointwise.h"
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

// The sums of R rows for the first NV panels of the pair, without scale and bias. With every group `lines` cache lines from
// `ahead` on are fetched, or without `ahead` all lines of the group that is read kNearGroups later.
template <int R, int NV>
inline __attribute__((always_inline)) void accumulate(const TrioInput& in, const std::uint32_t* ahead, int lines,
                                                      Vec (&acc)[R][NV * kVecs]) {
  constexpr int triples = (R + 2) / 3;
#pragma GCC unroll 8
  for (int v = 0; v < NV * kVecs; ++v) {
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) acc[r][v] = Vec{};
  }
  const std::ptrdiff_t row = in.row;
  const float* x[triples];
#pragma GCC unroll 8
  for (int i = 0; i < triples; ++i) x[i] = in.x + 3 * i * row;
  const auto add = [&](const Vec(&weight)[NV * kVecs], int c) __attribute__((always_inline)) {
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      const float xv = x[r / 3][(r % 3) * row + c];
#pragma GCC unroll 8
      for (int v = 0; v < NV * kVecs; ++v) acc[r][v] += weight[v] * xv;
    }
  };
  const std::uint32_t* w = in.words;
  const auto group = [&](int c, int inputs) __attribute__((always_inline)) {
    Vec first[NV * kVecs], second[NV * kVecs], third[NV * kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < NV * kVecs; ++v) {
      const std::uint32_t* const at = w + v / kVecs * 2 * kPanel + v % kVecs * FASTVOC_WIDTH;
      const WordVec one = trio_word(at), two = trio_word(at + kPanel);
      first[v] = upper(one);
      second[v] = lower(one, two);
      third[v] = upper(two);
    }
    add(first, c);
    if (inputs > 1) add(second, c + 1);
    if (inputs > 2) add(third, c + 2);
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
}

template <int R, int NV>
__attribute__((noinline)) void trio_tile(const TrioInput& in, const std::uint32_t* ahead, int lines, float* rows) {
  Vec acc[R][NV * kVecs];
  accumulate<R, NV>(in, ahead, lines, acc);
#pragma GCC unroll 8
  for (int v = 0; v < NV * kVecs; ++v) {
    const Vec scale = load(in.scale + v * FASTVOC_WIDTH), bias = load(in.bias + v * FASTVOC_WIDTH);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) acc[r][v] = acc[r][v] * scale + bias;
  }
  store_tile<R, NV>(rows, acc);
}

using TrioFn = void (*)(const TrioInput&, const std::uint32_t* ahead, int lines, float* rows);

template <int NV, int... R>
constexpr std::array<TrioFn, sizeof...(R) + 1> trio_table(std::integer_sequence<int, R...>) {
  return {nullptr, &trio_tile<R + 1, NV>...};
}

// Runs `rows` steps of NV panels in tiles of about equal height. A single tile fetches what it needs itself soon, several of them
// fetch the next pair together.
template <int NV>
void trio_panels(TrioInput in, TileOutput out, std::int64_t rows) {
  constexpr int high = NV == 2 ? FASTVOC_ROWS2 : FASTVOC_ROWS1;
  static constexpr auto table = trio_table<NV>(std::make_integer_sequence<int, high>{});
  alignas(64) float results[high * NV * kPanel];
  const std::int64_t tiles = ceil_div(rows, high), pair = trio_pair_words(in.depth);
  const int lines = static_cast<int>(ceil_div(4, tiles));
  const std::uint32_t* ahead = in.words + pair < in.end ? in.words + pair : in.next;
  for (std::int64_t left = tiles; left > 0; --left) {
    const std::int64_t n = ceil_div(rows, left);
    table[static_cast<std::size_t>(n)](in, tiles == 1 ? nullptr : ahead, lines, results);
    finish_pointwise(out, results, static_cast<int>(n), NV * kPanel);
    in.x += n * in.row;
    out = moved(out, n, 0);
    ahead += pair / 4 * lines;
    rows -= n;
  }
}

// The pairs of panels [first, last) of a layer; `next` are the words that the same thread reads after those.
inline void trio_rows(const Trios& layer, const float* x, std::ptrdiff_t row, TileOutput out, std::int64_t rows,
                      std::int64_t first, std::int64_t last, const std::uint32_t* next) {
  if (rows == 0) return;
  const int panels = padded(layer.outputs) / kPanel;
  for (std::int64_t p = first; p < last; ++p) {
    const std::ptrdiff_t column = 2 * p * kPanel;
    TrioInput in{x, row, layer.pair(p), layer.pair(last), next, layer.scale + column, layer.bias + column, layer.inputs};
    const bool two = 2 * p + 1 < panels;
    if constexpr (FASTVOC_ROWS2 > 0) {
      if (two) {
        trio_panels<FASTVOC_ROWS2 ? 2 : 1>(in, moved(out, 0, column), rows);
        continue;
      }
    }
    trio_panels<1>(in, moved(out, 0, column), rows);
    if (!two) continue;
    in.words += 2 * kPanel;
    in.scale += kPanel;
    in.bias += kPanel;
    trio_panels<1>(in, moved(out, 0, column + kPanel), rows);
  }
}

}  // namespace fastvoc::FASTVOC_ISA
